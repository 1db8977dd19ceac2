"""Every command of the README, run."""
