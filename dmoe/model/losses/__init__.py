"""The objective of training and its parts: correlation, losses of single experts, distillation."""
