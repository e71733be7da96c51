"""The small replicated state of a cluster: settings, services and events. Pure: no socket, no thread, no clock."""
