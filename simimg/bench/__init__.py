"""The measurements of `simimg bench`: this project beside other tools and the limits of the machine."""
