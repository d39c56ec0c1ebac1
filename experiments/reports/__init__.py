"""How each experiment is told: answer, tables and figures, from what was saved."""
