"""Reports of the experiments: answer, tables and figures, from saved results."""
