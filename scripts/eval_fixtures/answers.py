"""Odd answers that models give to multiple-choice questions."""

# ruff: noqa: RUF001

from __future__ import annotations

_FORMS = (
    *("{}", "{}.", "({})", "{})", "{}:", "**{}**", "[{}]", "{} ", " {}", "\n{}\n", "`{}`", '"{}"'),
    *("Option {}", "option {}.", "The answer is {}.", "The answer is ({}).", "Answer: {}"),
    *("The best answer is {}", "The correct answer is: {}", "The best option is {}."),
    *("The correct option is ({})", "Best answer: {}", "Best option: ({})", "I choose {}."),
    *("My answer is {}!", "I think it is {} because he runs.", "It must be {}", "Final answer: {}"),
    *("{}. a red car", "({}) a red car", "{} - a red car", "{}: a red car", "{}, as he says so"),
    *("It is {}, not the others", "So {} it is, if you ask me about the whole film again"),
    *("Answer is {}", "answer:{}", "<answer>{}</answer>", "\\boxed{{{}}}", "The choice is {}"),
    *("정답은 {}", "답: {}", "答案是{}", "答案为 {}。", "我选{}", "答えは {} です", "Antwort: {}"),
)
_OTHERS = (
    *("", " ", "\n", ".", "?", "...", "I do not know.", "None of the above", "Z", "the answer"),
    *("A or B", "A and C", "B, C", "(A) or (B)", "Not A but C", "Either (C) or (D)", "AB", "ABCD"),
    *("The answer is D because A", "A is wrong, so B.", "B is wrong. The answer is C.", "A B C D"),
    *("a red car", "A red car.", "the dog", "It is the dog.", "two", "a red car and the dog"),
    *("He drives a Car", "Dogs bark at Cars", "CAR", "Because", "Apple", "Every Answer Differs"),
    *("А", "Б", "В", "Α", "Β", "Ａ", "（Ｂ）", "①", "ب", "א", "अ", "Ｃ.", "Ć", "É", "Ð", "🅱️"),
    *("(a)", "b.", "c)", "d", "the answer is b", "answer: c", "(e)", "E", "(E)", "F", "G.", "H"),
    *("1", "2.", "Option 3", "first", "The second option.", "yes", "No", "No. A", "yes, B"),
    "Cannot determine the answer, but B",
    "I can't process this file. A",
    "Sorry, I can't help with images of people yet. C",
    "Failed to obtain answer via API",
    "<think>Could be A or B. He drives.</think> B",
    "<think>It shows a dog.</think>\n\nThe answer is C",
    "Let us see. A: wrong. B: wrong. C: right. D: wrong.",
    "A. a red car\nB. the dog\nC. two\nD. nothing at all\nAnswer: B",
    "The video shows a man who walks along the beach for a while and then turns around",
    "the man walks along the beach for a while, turns around, and then sits down again",
    "A man walks along the beach for a while and then turns around to look at the sea",
    "At the end a dog appears and barks, so that the option that fits is the one with it: B.",
    "At first I thought of B but the number on the Card shows that it should be D in the end",
    ") A",
    ")",
    "(",
    "A)",
    ")B",
    "x)y",
    "A)B)C)",
    "A.B.C.",
    "Best option: (",
    "C\nC\nC",
    "D" * 40,
    "Nothing at all",
    "nothing at all happens",
    "A dog, a car.",
)


def odd_answers() -> list[str]:
    """Return them all, each once."""
    written = [form.format(letter) for form in _FORMS for letter in "ABCD"]
    written += [form.format("E") for form in _FORMS[:12]]
    return list(dict.fromkeys([*written, *_OTHERS]))
