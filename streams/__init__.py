"""The Faust app and all I/O: lanes, gateways, notifiers, the command line."""
