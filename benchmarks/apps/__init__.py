"""What the bridge is compared with, in Python: small apps, written as their users write them."""
