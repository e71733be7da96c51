"""What this host tells and keeps: the runtime directory, files, settings' sources, where seeds are found."""
