"""Position slots: how order enters the stack."""
