"""What the commands share: arguments, output and the runner; each command is a module of `commands`."""
