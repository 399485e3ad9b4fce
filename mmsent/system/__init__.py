"""Files, processes, devices, progress bars, tables, versions: everything that concerns the machine."""
