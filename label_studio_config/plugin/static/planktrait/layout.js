// Where each crop stands: rows of crops at one scale, justified to the window's width.
// Pure arithmetic; rows hold only the numbers of their crops, so that many cost little.

const PAD = 3;
const NOTE_HEIGHT = 31;
const DETAIL_HEIGHT = 44;
const LEAST_SLOT = 30;
const NOTE_WIDTH = 132;
const DETAIL_WIDTH = 104;
const UNKNOWN_SIDE = 64;

/**
 * The size of a crop on screen, in CSS pixels.
 * options: {fixed, size} or {scale (CSS px per µm or per image px), micrometres, um (where a crop
 * has none), mostWidth, mostHeight}. `shrunk` > 1: too large for a row, so not at scale.
 */
export function cropSize(crop, options) {
  const width = crop.width || UNKNOWN_SIDE;
  const height = crop.height || UNKNOWN_SIDE;
  const side = Math.max(width, height);
  if (options.fixed) {
    const k = options.size / side;
    return { width: whole(width * k), height: whole(height * k), shrunk: 1 };
  }
  const k = options.scale * (options.micrometres ? crop.um || options.um : 1);
  const shrunk = Math.max(1, (width * k) / options.mostWidth, (height * k) / options.mostHeight);
  return { width: whole((width * k) / shrunk), height: whole((height * k) / shrunk), shrunk };
}

/** Pictures begin and end at pixels of the screen: else a neighbour in the sprite shines through. */
const whole = (length) => Math.max(1, Math.round(length));

function slot(crop, options) {
  const size = cropSize(crop, options);
  let width = (options.fixed ? options.size : Math.max(size.width, LEAST_SLOT)) + 2 * PAD;
  if (options.details) width = Math.max(width, DETAIL_WIDTH);
  const noted = Boolean(crop.conflict || crop.unsaved);
  if (noted) width = Math.max(width, NOTE_WIDTH);
  const height = (options.fixed ? options.size : size.height) + 2 * PAD;
  return { size, width, height, caption: options.details ? DETAIL_HEIGHT : noted ? NOTE_HEIGHT : 0 };
}

/** Rows `{start, end, y, height, caption, width}` of crops[from…], below `y`. Gone crops have no place. */
export function layRows(crops, from, y, options) {
  const rows = [];
  let row = null;
  const close = () => {
    row.height = Math.ceil(row.height) + row.caption;
    y += row.height + options.gap;
    rows.push(row);
    row = null;
  };
  for (let i = from; i < crops.length; i++) {
    if (crops[i].gone) continue;
    const { width, height, caption } = slot(crops[i], options);
    if (row && row.width + width > options.width) close();
    row ??= { start: i, end: i, y, height: 0, caption: 0, width: 0, count: 0, full: true };
    row.width += width + options.gap;
    row.count += 1;
    row.height = Math.max(row.height, height);
    row.caption = Math.max(row.caption, caption);
    row.end = i + 1;
  }
  if (row) {
    row.full = false;
    close();
  }
  return rows;
}

/** The cells of a row: `{index, x, width, height, size}`, the slot (without words) in CSS pixels. */
export function rowCells(crops, row, options) {
  const cells = [];
  const spare = options.width - (row.width - options.gap);
  const each = row.full || options.fixed ? Math.max(0, spareEach(row, spare, options)) : 0;
  let x = 0;
  for (let index = row.start; index < row.end; index++) {
    if (crops[index].gone) continue;
    const { size, width } = slot(crops[index], options);
    const left = Math.round(x);
    const height = row.height - row.caption;
    cells.push({ index, x: left, width: Math.round(x + width + each) - left, height, size });
    x += width + each + options.gap;
  }
  return cells;
}

function spareEach(row, spare, options) {
  if (!options.fixed || options.details) return row.full ? spare / row.count : 0;
  // In a grid the last row keeps the columns of the others.
  const width = options.size + 2 * PAD;
  const columns = Math.max(1, Math.floor((options.width + options.gap) / (width + options.gap)));
  return (options.width - columns * (width + options.gap) + options.gap) / columns;
}

/** The first row that ends below `y`. */
export function rowAt(rows, y) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].y + rows[middle].height <= y) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The row that holds crops[index], or the one after it where that crop is gone. */
export function rowOf(rows, index) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].end <= index) low = middle + 1;
    else high = middle;
  }
  return low;
}
