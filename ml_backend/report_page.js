// A click on a column's head sorts by it; numbers start with the largest.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const numeric = head.classList.contains("n");
      const falling = head.getAttribute("aria-sort")
        ? head.getAttribute("aria-sort") === "ascending"
        : numeric;
      const rows = [...body.rows].sort((a, b) => {
        if (!numeric) return key(a).localeCompare(key(b)) * (falling ? -1 : 1);
        const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is unknown comes last
        return (x - y) * (falling ? -1 : 1);
      });
      body.append(...rows);
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    });
  });
}
// On paper nothing can be unfolded.
addEventListener("beforeprint", () =>
  document.querySelectorAll("details").forEach((details) => (details.open = true)),
);
