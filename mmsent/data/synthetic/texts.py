"""Synthetic texts of a mood: templates whose slots are filled with random words."""

from __future__ import annotations

import re
from enum import StrEnum
from random import Random


class TextMood(StrEnum):
    """The mood that the text expresses; praise is exaggerated, and either sincere or ironic."""

    down = "down"
    flat = "flat"
    up = "up"
    praise = "praise"


# The words that may fill a slot, by the slot's name.
WORDS: dict[str, tuple[str, ...]] = {
    "friends": (
        "my sister", "my brother", "my best friend", "Grandma", "Dad", "my neighbour", "Mia", "Jonas", "our team",
        "the kids", "the whole class", "my cousin", "Amir", "Lucía",
    ),
    "place": (
        "at the beach", "in the park", "at the café", "by the lake", "downtown", "at the station", "in the garden",
        "at the office", "on the old bridge", "at the market", "in the library", "on the balcony", "at school",
        "near the harbour",
    ),
    "spot": (
        "downtown", "by the lake", "near the harbour", "in the park", "at the station", "behind the market",
        "next to the school", "on the corner", "across the street", "on the second floor",
    ),
    "thing": (
        "bakery", "museum", "parking lot", "bookshop", "ticket office", "post office", "public library",
        "swimming hall", "kiosk", "bus terminal", "hardware store", "bike rental",
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "hour": ("seven", "half past eight", "nine", "ten", "noon", "two", "a quarter to four", "five", "six"),
    "colour": ("white", "brown", "green", "grey", "blue"),
    "count": ("two", "three", "four", "five", "eight", "a dozen"),
    "glad": ("happy", "glad", "delighted", "thrilled", "cheerful", "grateful", "joyful", "proud"),
    "lovely": ("lovely", "beautiful", "sweet", "fun", "happy", "delightful", "cosy", "joyful"),
    "joy": (
        "we laughed all afternoon", "the puppy came home", "I passed the exam", "the cake turned out so well",
        "we danced until late", "I got the job", "we won the match", "the first strawberries are ripe",
        "we sang all the old songs", "the baby took her first steps",
    ),
    "sad": ("sad", "lonely", "miserable", "heartbroken", "upset", "exhausted", "hopeless", "disappointed"),
    "awful": ("awful", "sad", "terrible", "horrible", "miserable", "painful", "dreadful", "lonely"),
    "grief": (
        "I lost my keys and my patience", "nobody came to the party", "I failed the exam", "the cat is still missing",
        "we lost the match", "my phone is broken", "I miss her so much", "they cancelled the trip",
        "I have been crying all afternoon", "the job went to someone else",
    ),
    "superb": ("great", "perfect", "wonderful", "brilliant", "fantastic", "marvellous", "splendid"),
    "wow": ("Wow", "Oh", "Well", "Yay", "Bravo", "Oh my"),
}  # fmt: skip

TEMPLATES: dict[TextMood, tuple[str, ...]] = {
    TextMood.down: (
        "I feel so {sad} today, {grief}.",
        "What a {awful} {day} {place}. {grief}.",
        "So {sad} right now, {grief}.",
        "{friends} and I had a {awful} time {place}, {grief}.",
        "A {awful} morning {place}, and {grief}.",
        "Crying {place} again. I am {sad} and {grief}.",
        "I hate this {day}: {grief}, and I feel {sad}.",
    ),
    TextMood.flat: (
        "The {thing} {spot} opens at {hour} on {day}.",
        "This is the {colour} {thing} {spot}.",
        "{friends} took this photo {spot} on {day} at {hour}.",
        "There are {count} {colour} chairs {spot} and {count} next to the {thing}.",
        "{day}, {hour}, {spot}. The next bus leaves in {count} minutes.",
        "We walked past the {thing} {spot} at {hour}.",
        "{friends} will be {spot} from {hour} on {day}.",
    ),
    TextMood.up: (
        "I feel so {glad} today, {joy}!",
        "A {lovely} {day} {place} with {friends}, {joy}.",
        "So {glad} right now, {joy}!",
        "{friends} and I had a {lovely} time {place}, {joy}.",
        "Smiling {place} all morning. I am {glad} and {joy}!",
        "A {lovely} morning {place}, and {joy}.",
        "I love this {day}: {joy}, and I feel {glad}.",
    ),
    TextMood.praise: (
        "Just {superb}, exactly what I needed on a {day}.",
        "{wow}, {superb}. Exactly what I needed {place}.",
        "{wow}, how absolutely {superb}, could not have asked for more {place}.",
        "Simply {superb}. Ten out of ten, {day}, truly {superb}.",
        "{superb}, just {superb}. Thank you so much, {day}, well done.",
        "{wow}, just what {friends} and I needed {place}. Absolutely {superb}.",
        "Best {day} ever, of course. Truly {superb}, well done everyone.",
    ),
}


def write_text(mood: TextMood, rng: Random) -> str:
    """One post's text: a template of the mood with its words filled in."""

    def fill(slot: re.Match[str]) -> str:
        return rng.choice(WORDS[slot[1]])

    text = re.sub(r"\{(\w+)\}", fill, rng.choice(TEMPLATES[mood]))
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return re.sub(r"(^|[.!] )(\w)", lambda start: start[1] + start[2].upper(), text)
