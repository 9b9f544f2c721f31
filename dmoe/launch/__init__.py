"""torchx components: pure functions to an AppDef."""
