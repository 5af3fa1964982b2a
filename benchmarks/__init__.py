"""Reports for people: what sessions cost, beside other ways to the same end. Nothing here is a test."""
