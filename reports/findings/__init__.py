"""Key findings: sentences with numbers, found by rules. Each rule is a pure function from a sweep to what it found."""
