"""Text that is hard to cut: contractions, spaces, odd numbers, many scripts, control characters, markers."""

TRICKY = [
    "",
    " ",
    "Once upon a time, there was a little girl named Lily. She couldn't stop; they'll say 'twas I've!",
    "tabs\tand  runs   of    spaces \n\n\nand\r\nnewlines \n  indented\n",
    "cm³ ½ cup, Ⅷ and ٣٤ or x²y ①②",
    "naïve café — “quotes” … e\u0301 combining\u0308 Ångström ﬁne Σίσυφος ΟΔΟΣ İstanbul",
    "日本語のテキスト、漢字とかな。한국어 텍스트 Привет мир हिन्दी สวัสดี עברית",
    "😀👩‍👩‍👧 👍🏽 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🇩🇪",
    "\x00\x01\x1c \x1d\x1e\x1f\x85\xa0 \u2003\u3000x\u200b\ufeff",
    "a,b,,c, ,; code_snake __init__(self) x+=1 <|not_special|> <unk> <| 12345678 3.14159",
    "IT'S YOU'RE 'Sam 'ſo 'LL 're'",
    "<|bos|>hello<|eos|> <|im_start|>user\nhi<|im_end|>\n<|pad|><|unk|><|reserved_1|>",
]
