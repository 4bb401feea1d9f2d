# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Tokenizer
#     minutes: 45
#     seconds: 8
#     needs: Lesson 00.
#     modules: [tokenizer]
#     goals:
#       merge: Encode a word by hand with a table of ranks.
#       split: Say where the borders between tokens must fall, and why one text has many spellings.
#       language: Explain why the same sentence costs more tokens in one language than in another.
#       special: Keep control tokens and the text that looks like them apart.
# ---

# %% [markdown]
# A language model never sees letters. It sees **tokens**: integers below 201,088, each of which stands for a short
# string of bytes. This lesson builds the program in between, first with a vocabulary that fits on the page, then with
# the one that gpt-oss was trained with.

# %%
import itertools
from collections import Counter

from gptoss_jax.tokenizer import Tokenizer, train
from gptoss_jax.tokenizer.bpe import merge, merge_steps, split
from gptoss_jax.tokenizer.training import learn_merges

# %% [markdown]
# ## Text is bytes
#
# Files and networks carry bytes, numbers from 0 to 255, and UTF-8 is the rule by which letters become bytes. English
# letters take one byte each, most other letters two or three, an emoji four.

# %%
for letter in "aé日🦉":
    print(letter, list(letter.encode()))
assert [len(letter.encode()) for letter in "aé日🦉"] == [1, 2, 3, 4]

# %% [markdown]
# A model could read these bytes directly: a **vocabulary** of 256 would do, and no text in the world would be out of
# reach. But attention compares every position with every other, so a text of half as many positions costs a quarter
# of the work. We want common strings in one piece, while single bytes stay available for whatever is rare.

# %% [markdown]
# ## Learning a vocabulary
#
# **Byte-pair encoding** finds the common strings by itself. Start with the 256 bytes. Count all pairs of neighbors in
# a training text, join the most frequent pair into a new token, and repeat with the text so changed. Here is the first
# step, counted by hand on a text of ten words.

# %%
text = "low low low lower lower newest newest newest newest widest"
pairs = Counter()
for word in split(text):
    pairs.update(itertools.pairwise(word))
print(pairs.most_common(4))

# %% [markdown] predict="first"
# Which two letters become the first new token, and what will be counted differently afterwards?
#
# ANSWER: `w` and `e`, six times: twice in "lower" and four times in "newest". From then on "newest" consists of
# `n e we s t`, so the pairs `e w` and `e s` in it have disappeared, and `e we` and `we s` have appeared.

# %%
steps = list(learn_merges(text))
course.table([(s.rank, s.left, s.right, s.count) for s in steps[:6]], header=("rank", "left", "right", "count"))
assert (steps[0].left, steps[0].right, steps[0].count) == (b"w", b"e", pairs["w", "e"])

# %% [markdown]
# Each row is one **merge**. The tokens are numbered in the order in which they were learned; this number is called
# the **rank**, and it is at the same time the token's id. Ranks 0 to 255 are the bytes themselves, so the first new
# token has rank 256. Note how later merges are built from earlier ones, until whole words are one token.
#
# A few sentences more, and sixty merges:

# %%
sentences = """The router chooses four experts for every token. Every expert is a small network, and most experts rest
while one token passes. The token passes through attention, then through the experts that the router has chosen."""
toy, merges = train((sentences + " ") * 5, num_ranks=316)
print(len(toy), "tokens, the last:", [step.token.decode() for step in merges[-3:]])
assert toy[b"e"] == ord("e")

# %% [markdown]
# ## Encoding with ranks
#
# To encode a new word, undo nothing and search nothing: start again from its bytes, and always join the neighbors
# whose union has the lowest rank, the leftmost on ties. When no union of neighbors is in the table, the parts that are
# left are the tokens. In plain Python:


# %%
def join_once(parts, ranks):
    """The list of parts with the best pair of neighbors joined, or the same list if no pair can be."""
    unions = [a + b for a, b in itertools.pairwise(parts)]
    known = [i for i, union in enumerate(unions) if union in ranks]
    if not known:
        return parts
    i = min(known, key=lambda i: ranks[unions[i]])
    return [*parts[:i], unions[i], *parts[i + 2 :]]


# %%
parts = [bytes([value]) for value in b" routers"]
rows = [parts]
while (joined := join_once(rows[-1], toy)) != rows[-1]:
    rows.append(joined)
for row in rows:
    print(" | ".join(part.decode() for part in row))

# %% [markdown]
# Read it from top to bottom: every line has one border less. The word "routers" was not in the training text, but its
# parts were.
#
# The package does the same, and shows the same steps. It keeps the pairs in a heap instead of looking at all of them
# again after each merge. The loop above takes time proportional to the square of the length; with the heap a piece of
# a million letters is a matter of seconds.

# %%
assert list(merge_steps(b" routers", toy)) == rows
assert merge(b" routers", toy) == [toy[part] for part in rows[-1]]
assert Tokenizer(toy, {}).encode(" routers") == merge(b" routers", toy)  # and tiktoken's engine agrees

# %% [markdown] exercise="bpe_merge" stars=2 minutes=12 goal="merge"
# ### Encode a piece
#
# Write `bpe_merge(piece, ranks)`: `piece` is a string of bytes, `ranks` a table from bytes to rank, and the result the
# list of ranks. Lowest rank first, leftmost on ties, until nothing can be joined. An empty piece has no tokens.


# %% solution="bpe_merge"
def bpe_merge(piece, ranks):
    ### BEGIN SOLUTION
    parts = [bytes([value]) for value in piece]
    while True:
        unions = [a + b for a, b in itertools.pairwise(parts)]
        best = min((union for union in unions if union in ranks), key=ranks.get, default=None)
        if best is None:
            return [ranks[part] for part in parts]
        i = unions.index(best)
        parts[i : i + 2] = [best]
    ### END SOLUTION


# %% check="bpe_merge"
lesson.check.bpe_merge(bpe_merge)

# %% [markdown]
# ## Cutting before merging
#
# If merges could cross any border, "dog", "dog." and "dog!" might become three unrelated tokens. So the text is first
# cut by a regular expression, and no token ever reaches over a cut. The one of gpt-oss has seven alternatives: words
# with the blank before them, words in capitals, up to three digits, punctuation, line ends, and two kinds of blanks.

# %%
pieces = list(split("It's 2026:  the routers\tagree!\n"))
print(pieces)
assert "".join(pieces) == "It's 2026:  the routers\tagree!\n"  # cutting loses nothing

# %% [markdown]
# Three details matter later. The blank belongs to the *following* word: `" the"` and `"the"` are different tokens. A
# number falls apart into groups of three from the left, so 2026 is `202` and `6`, which does not help with arithmetic.
# And of two blanks the first stands alone while the second joins the word.

# %% [markdown]
# ## The vocabulary of gpt-oss
#
# The table is called `o200k_harmony`: 199,998 byte strings with their ranks, learned as above from a far larger text.
# It comes with this package, is checked against its published hash, and needs no network.

# %%
tokenizer = Tokenizer.o200k_harmony()
ids = tokenizer.encode("The router chooses four experts.")
for token in ids:
    print(f"{token:7}  {tokenizer.token_text(token)!r}")
assert tokenizer.decode(ids) == "The router chooses four experts."

# %% [markdown] predict="spelling"
# The id of " router" is one number. Are there other lists of ids that decode to " router" too?
#
# ANSWER: Many: any way to cut the bytes into tokens of the table, down to single bytes, decodes to the same text. The
# encoder always chooses the one that merging leads to. The model has almost only seen that one, and reads the others
# like a text full of misprints.

# %% [markdown] exercise="two_spellings" stars=1 minutes=6 goal="split"
# ### One text, two spellings
#
# Give two different lists of ids, `spellings = [first, second]`, that both decode to " experts": the one that
# `tokenizer.encode` gives, and another one. `tokenizer.ranks` is the table from bytes to id.

# %% solution="two_spellings"
### BEGIN SOLUTION
first = tokenizer.encode(" experts")
second = [tokenizer.ranks[b" "], *tokenizer.encode("experts")]
spellings = [first, second]
### END SOLUTION

# %% check="two_spellings"
lesson.check.two_spellings(spellings)

# %% [markdown]
# ## What a language costs
#
# Merges were learned from a text in which some languages were frequent and others rare. The same sentence, an article
# of the Universal Declaration of Human Rights shortened, therefore takes more tokens in some of them.

# %%
article = {
    "English": "All human beings are born free and equal.",
    "Spanish": "Todos los seres humanos nacen libres e iguales.",
    "German": "Alle Menschen sind frei und gleich geboren.",
    "Russian": "Все люди рождаются свободными и равными.",
    "Hindi": "सभी मनुष्य स्वतंत्र और समान पैदा होते हैं।",
    "Chinese": "人人生而自由，在尊严上一律平等。",
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი.",
    "Amharic": "የሰው ልጅ ሁሉ ነጻ ሆኖ ይወለዳል።",
}
counts = {name: len(tokenizer.encode(line)) for name, line in article.items()}
bytes_per_token = {name: len(article[name].encode()) / counts[name] for name in article}

# %%
fig, ax = course.figure(7, 3)
ax.barh(list(counts), list(counts.values()), color="#44688F")
ax.invert_yaxis()
_ = ax.set_xlabel("tokens for one sentence")
course.show(
    fig,
    alt="Bar chart, languages down, tokens across: the number of tokens of one sentence in eight languages.",
    summary=f"English takes {counts['English']} tokens, Amharic {counts['Amharic']}, for about the same sentence.",
)
assert counts["English"] < counts["Georgian"] and counts["English"] < counts["Amharic"]

# %% [markdown]
# More tokens mean more time, more money, and less room in the context, for the same thought. Bytes per token say it
# from the other side: the longer the known strings, the more bytes one token covers.

# %%
course.table(
    [(name, counts[name], f"{bytes_per_token[name]:.1f}") for name in counts], header=("", "tokens", "bytes each")
)
assert bytes_per_token["Amharic"] < bytes_per_token["English"]

# %% [markdown]
# ## Half a character
#
# Tokens are bytes, not letters, so a token can end in the middle of a letter. Alone it is no valid UTF-8, and a
# program that decodes token by token prints the replacement sign � where a moment later an owl would have come.

# %%
ids = tokenizer.encode(" 🦉!")
print([tokenizer.token_text(token) for token in ids])
print([tokenizer.decode([token]) for token in ids], "decoded one by one")
stream = tokenizer.stream()
print([stream.push(token) for token in ids], "decoded as a stream")

# %% [markdown]
# The stream holds incomplete bytes back until the rest arrives. Whatever the tokens are, its pieces add up to the
# text:

# %%
stream = tokenizer.stream()
assert "".join(stream.push(token) for token in ids) + stream.flush() == tokenizer.decode(ids) == " 🦉!"

# %% [markdown]
# ## Special tokens
#
# Above the table lie tokens that no text can produce. A **special token** has a name, such as `<|start|>`, but it is
# not made of the bytes of this name: it is a number of its own, which only a program can write. The next lesson shows
# what they are for.

# %%
names = ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>"]
course.table([(name, str(tokenizer.special_tokens[name])) for name in names], header=("name", "id"))
assert tokenizer.n_vocab == 201_088  # rows of the embedding table

# %% [markdown] predict="smuggle"
# A user types `<|end|>` into a chat. What should the program do with it: use the control token, refuse, or write the
# seven characters?
#
# ANSWER: Never use the control token, or users could end their message and begin one in the name of the system. The
# tokenizer refuses by default, so that nobody does it by accident; code that renders messages writes the characters.

# %%
try:
    tokenizer.encode("good bye <|end|>")
except ValueError as error:
    print(str(error).split(";")[0])
plain = tokenizer.encode("<|end|>", disallowed_special=())
control = tokenizer.encode("<|end|>", allowed_special={"<|end|>"})
print(plain, control)
assert tokenizer.decode(plain) == tokenizer.decode(control)

# %% [markdown]
# Both decode to the same characters, and a human reader sees no difference; the model sees five ordinary tokens or one
# control token. Text is not enough to know what a model was given: look at the ids.

# %% [markdown] exercise="count_controls" stars=1 minutes=5 goal="special"
# ### Count control tokens
#
# Write `count_controls(tokenizer, ids)`, the number of control tokens in a list of ids, for any tokenizer. The names
# in the decoded text do not tell, and ids differ between vocabularies: ask `tokenizer.special_tokens`.


# %% solution="count_controls"
def count_controls(tokenizer, ids):
    ### BEGIN SOLUTION
    control = set(tokenizer.special_tokens.values())
    return sum(token in control for token in ids)
    ### END SOLUTION


# %% check="count_controls"
lesson.check.count_controls(count_controls)

# %% [markdown]
# ## What to remember
#
# - Tokens are byte strings. Any text can be encoded, and any token can be decoded, if only to half a letter.
# - A vocabulary is learned by joining the most frequent neighbors; encoding joins by rank, lowest first.
# - Cuts come before merges: a token never spans two words.
# - Special tokens are numbers, not strings. Their ids belong to the vocabulary.
