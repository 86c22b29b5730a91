"""The product page's HTML: page.html with the parts filled in; everything that came from a service or a user is escaped."""

import html
import re
from pathlib import Path

from common import POD

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
DETAILS = ("type", "pages", "publisher", "language", "ISBN-10", "ISBN-13")
SIGN_IN = (
    '<form method="post" action="login"><input name="username" placeholder="User name, e.g. jason" aria-label="User name" required autocomplete="off">'
    '<input name="passwd" type="password" placeholder="Any password" aria-label="Password"><button>Sign in</button></form>'
)


def render(product, user, details, reviews):
    """The page for a product; `details` and `reviews` are answers with status, body, seconds and tries."""
    parts = {
        "TITLE": html.escape(product["title"]),
        "SUMMARY": product["descriptionHtml"],
        "AUTHOR": html.escape(str(details.body.get("author", ""))) if good(details) else "",
        "YEAR": html.escape(str(details.body.get("year", ""))) if good(details) else "",
        "DETAILS": details_part(details),
        "REVIEWS": reviews_part(reviews),
        "LOGIN": f'<span class="user">{html.escape(user)}</span><a href="logout">Sign out</a>' if user else SIGN_IN,
        "CALLS": calls_part(details, reviews),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], PAGE)


def good(answer):
    return answer.status == 200 and isinstance(answer.body, dict)


def error_part(what, answer):
    message = answer.body.get("error", "") if isinstance(answer.body, dict) else ""
    return f'<div class="error"><h4>Error fetching product {what}!</h4><p>{html.escape(message)}</p></div>'


def details_part(answer):
    if not good(answer):
        return error_part("details", answer)
    rows = (f"<dt>{name[0].upper() + name[1:]}</dt><dd>{html.escape(str(answer.body.get(name, '')))}</dd>" for name in DETAILS)
    return f"<dl>{''.join(rows)}</dl>"


def reviews_part(answer):
    if not good(answer):
        return error_part("reviews", answer)
    listed = "".join(review_part(one) for one in answer.body.get("reviews", ()))
    return f'{listed}<p class="pod">Reviews served by <code>{html.escape(str(answer.body.get("podname", "")))}</code></p>'


def review_part(review):
    who, text = html.escape(str(review.get("reviewer", ""))), html.escape(str(review.get("text", "")))
    return f"<blockquote><p>{text}</p><footer><b>{who}</b>{rating_part(review.get('rating'))}</footer></blockquote>"


def rating_part(rating):
    """Stars in the version's colour, the reason why there are none, or nothing (v1)."""
    if not isinstance(rating, dict):
        return ""
    if "stars" not in rating:
        return f'<span class="norating">{html.escape(str(rating.get("error", "")))}</span>'
    stars, color = min(5, max(0, int(rating["stars"]))), "red" if rating.get("color") == "red" else "black"
    return f'<span class="stars {color}" role="img" aria-label="{stars} of 5 stars">{"★" * stars}<i>{"★" * (5 - stars)}</i></span>'


def calls_part(details, reviews):
    """Who answered this page, how long it took, in how many tries: what a fault or a route changes."""
    pod = str(reviews.body.get("podname", "")) if good(reviews) else "no answer"
    rated = [one.get("rating") for one in reviews.body.get("reviews", ())] if good(reviews) else []
    rows = [("productpage", POD, None), ("details", "answered" if good(details) else "no answer", details), ("reviews", pod, reviews)]
    if any(rated):
        rows.append(("ratings", "answered" if all("stars" in one for one in rated if one) else "no answer", None))
    return "".join(call_part(*row) for row in rows)


def call_part(service, who, answer):
    took = (
        ""
        if answer is None
        else f"{answer.status} · {answer.seconds * 1000:.0f} ms" + (f" · {answer.tries} tries" if answer.tries > 1 else "")
    )
    bad = ' class="bad"' if who == "no answer" else ""
    return f"<tr{bad}><th>{service}</th><td>{html.escape(who)}</td><td>{took}</td></tr>"
