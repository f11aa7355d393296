"""The web app that shows runs, plays negotiations and gathers human ratings.

settings        how it is served
serve, app      bind, build the application, its table of routes
security        Host, access token, session, CSRF and headers of every answer
pages           templates to HTML
library         which runs there are, by id
run_pages, comparison   the list, one run, several runs compared
metrics         a run's metrics as they grow
plots, scales   curves as SVG geometry
index, query    negotiations in SQLite: built step by step, filtered, sorted, paged
dialogue        one negotiation laid out: rounds, windows, loss, tokens
cast, play      who can sit down, and one negotiation as it is played
ratings         blind ratings, append-only, and how far raters agree
export          a run as a folder of static pages
"""
