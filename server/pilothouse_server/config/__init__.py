"""Config maps and secrets: configuration that containers of a namespace read."""
