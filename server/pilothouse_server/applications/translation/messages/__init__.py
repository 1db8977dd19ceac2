"""Values of the translator ↔ messages ↔ values of the nouns; containers in the form in which equal ones are equal."""
