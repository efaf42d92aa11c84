"""Networks that are trained: built, with heads and extra targets, written as plain timm, and classical heads."""
