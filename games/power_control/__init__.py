"""Power control: frequency caps that fit more servers under one breaker."""
