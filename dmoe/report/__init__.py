"""Reading runs back, and telling people about them: tables and pages."""
