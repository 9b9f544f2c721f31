"""The experiment as a typed tree of settings, the files that it is read from, and the messages that name what is wrong in them."""
