"""The guest's side of a fault: what its own trace shows, and how that joins the host's."""
