"""torchx components, functions that return an AppDef."""
