"""What is annotated and where: configs, schema, results, manifest, hosting, the plugin."""
