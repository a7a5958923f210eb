"""The platform `modal`: GPU workers as function calls of a Modal app."""
