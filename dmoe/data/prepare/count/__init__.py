"""Statistics of the train split that are needed before rows are written: token counts, vocabularies, sizes of hashed ids, moments."""
