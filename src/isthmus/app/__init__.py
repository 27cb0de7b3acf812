"""The web app: a page that shows what passes between a picture and a text, on this machine."""
