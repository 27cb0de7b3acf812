"""Texts that would be code, markup, a path or a burden somewhere."""

from __future__ import annotations

from app.bad_pictures import CANARY, SCRIPT

MEGABYTE = 1 << 20


def texts() -> dict[str, str]:
    """Each by what it tries; always the same."""
    return {
        "script": SCRIPT,
        "script in a sentence": f"a dog {SCRIPT} on the grass",
        "image that fails": '<img src=x onerror="window.hacked=1">',
        "svg that loads": "<svg/onload=window.hacked=1>",
        "end of an attribute": '" onmouseover="window.hacked=1" x="',
        "end of an attribute, single": "' onfocus='window.hacked=1' autofocus '",
        "end of a textarea": f"</textarea></script>{SCRIPT}",
        "end of a style": f"</style>{SCRIPT}",
        "end of a comment": f"-->{SCRIPT}",
        "markdown link": "[a dog](javascript:window.hacked=1)",
        "markdown image": f"![a](http://127.0.0.1:9/{CANARY}.png)",
        "link": '<a href="javascript:window.hacked=1">a dog</a>',
        "frame": '<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>',
        "base": '<base href="http://127.0.0.1:9/">',
        "refresh": '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
        "style": "<style>*{display:none}</style>",
        "form": '<form action="http://127.0.0.1:9/"><input autofocus onfocus="window.hacked=1">',
        "entities": "&lt;script&gt;window.hacked=1&lt;/script&gt; &amp; &#x3C;b&#x3E;",
        "javascript template": "${window.hacked=1} `${window.hacked=1}`",
        "handlebars": "{{#each this}}{{constructor.constructor 'window.hacked=1'}}{{/each}} {{{value}}}",
        "jinja": "{{7*7}} {% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
        "format": "{} {0} {0.__class__} {__import__} %s %n %(x)s {self!r}",
        "mathjax": "$\\href{javascript:window.hacked=1}{x}$ $$\\input{/etc/passwd}$$",
        "json": '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
        "prototype": '{"__proto__": {"hacked": 1}}',
        "path": "/etc/passwd",
        "path up": "../../../../etc/passwd",
        "address": "http://169.254.169.254/latest/meta-data/",
        "file address": "file:///etc/passwd",
        "shell": f"$(touch {CANARY}); `touch {CANARY}` | touch {CANARY} && true",
        "python": f"__import__('os').system('touch {CANARY}')",
        "sql": "'; DROP TABLE pictures; --",
        "csv formula": '=HYPERLINK("http://127.0.0.1:9/","a dog")',
        "header": "a dog\r\nSet-Cookie: hacked=1\r\n\r\n<b>",
        "event stream": "a dog\n\ndata: {}\n\nevent: close\n\n",
        "nothing": "",
        "blanks": " \t\n\r\x0b\x0c\u00a0\u2003\u3000",
        "null": "a\x00dog\x00",
        "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f dog",
        "half of a pair": "a \ud800 dog",
        "other half": "\udfff",
        "right to left": "\u202egod a\u202c \u2066x\u2069",
        "marks": "d" + "\u0301\u0489" * 400 + "og",
        "zero width": "\u200b\u200c\u200d\ufeff" * 50,
        "families": "👨‍👩‍👧‍👦" * 60,
        "private": "\ue000\uf8ff\U0010ffff\ufffe\uffff",
        "tokens of a model": "<|startoftext|> a dog <|endoftext|> [CLS] [SEP] </s> <pad> <mask>",
        "one letter, 1 MB": "a" * MEGABYTE,
        "words, 1 MB": "dog " * (MEGABYTE // 4),
        "lines, 1 MB": "a\n" * (MEGABYTE // 2),
        "markup, 1 MB": "<b>" * (MEGABYTE // 3),
        "brackets, 1 MB": "(" * MEGABYTE,
        "signs, 1 MB": "犬" * (MEGABYTE // 3),
        "marks, 1 MB": "\u0301" * (MEGABYTE // 2),
        "long line of prompts": "\n".join(f"prompt {n}" for n in range(5000)),
    }
