"""The commands of dmoe, and the options that they share."""
