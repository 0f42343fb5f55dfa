"""The web server: the kiosk's API, API v1 and the page."""
