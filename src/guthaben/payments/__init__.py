"""The outside world that moves money: what the services need of it, and Stripe doing it."""
