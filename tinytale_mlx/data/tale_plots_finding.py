"""Plots about finding: lost things, treasure and little ones who lost their way.

How to read them: tale_grammar.py.
"""

from .tale_grammar import Script, prop

PLOTS = [
    Script(
        name="lost",
        friend="peer",
        where="village farm wood garden pond sea hill snow",
        props=[
            prop(thing="red scarf", how="The wind had carried it there"),
            prop(thing="silver bell", how="It had rolled there in the night"),
            prop(thing="blue ball", how="It had bounced there all by itself"),
            prop(thing="tin whistle", how="It had slipped out of {his} bag"),
            prop(thing="woolly hat", how="The wind had picked it up and dropped it"),
            prop(thing="lucky button", how="It had rolled down the path like a tiny wheel"),
            prop(thing="little drum", how="{hero} had left it there after dancing"),
            prop(thing="yellow kite", how="The wind had played with it and put it down"),
        ],
        lessons=[
            "it is easier to look for something together",
            "four eyes see more than two",
            "a friend makes every search shorter",
            "it is good to ask for help",
        ],
        start="""
/
{One_day}, {hero} could not find {his} {thing}. {He} wanted it back.
{One_day}, {hero} lost {his} {thing}. {He} wanted to find it [right away|before supper|at once].
{One_day}, {hero} reached for {his} {thing}, but it was not there. {He} wanted it back.
{One_day}, something was missing. It was the {thing} that {hero} loved best.
{One_day}, {hero} [looked up|woke up] and saw that {his} {thing} was gone.

?
{He} [looked|searched] high and low. {He} even looked in {his} breakfast bowl.
{He} looked once, {he} looked twice, and then {he} looked with one eye closed.
"Where can it be?" said {hero}, turning round and round like a spinning top.
{He} asked the wind, but the wind only [whistled|laughed|blew].
{He} turned over every stone, but found only an old [sock|spoon|feather].
A [big|round] tear rolled down {his} face.

/
@meet

?
"Why do you look so sad?" asked {friend}.
"What is wrong, {hero}?" asked {friend}.
"You look like a rainy day," said {friend}.

"My {thing} is gone," [sniffed|sighed|said] {hero}. "Then we will look together," said {friend}.
"I lost my {thing}," said {hero}. "Do not worry," said {friend}. "I will help you look."
"Have you seen my {thing}?" asked {hero}. "No," said {friend}, "but I am very good at looking."
"I miss my {thing}," said {hero}. "Come," said {friend}. "It must be waiting for us somewhere."

They looked [left and right|up and down] until they came to {spot}.
Together they searched all around {area}, and at last they came to {spot}.
They took small steps and sang a looking song all the way to {spot}.
They walked and walked. "Let us try {spot}," said {friend}.
""",
        ending="""
/
There was the {thing}! {how}.
"I see it!" cried {hero}. It was the {thing}! {how}.
{friend} pointed. There it was, [safe|dusty] but not broken. {how}.
Something was lying on the ground, and it was the {thing}! {how}.

?
"Thank you, {friend}," said {hero}. "You did not give up."
{hero} [hugged|thanked] {friend} and let {fhim} hold the {thing} all the way home.
"You found my smile too," said {hero}, and {friend} laughed.
{hero} jumped for joy. "Now you may play with it too," {he} told {friend}.

@lesson

?
@close
""",
        unkind="""
/
There was the {thing}! {how}. {hero} grabbed it.
"It is mine!" cried {hero}, and pulled the {thing} away. {how}.
{friend} pointed. There it was, and {hero} grabbed it at once. {how}.

?
"Go away now, {friend}," said {hero}. "I do not need you."
{hero} pushed {friend} aside and did not let {fhim} hold the {thing}.
"I would have found it without you," said {hero}, and {friend} felt sad.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} lose?", "{hero} lost {his} {thing}."),
            ("Who helped {hero} look?", "{friend} helped {hero} look for the {thing}."),
            ("Where did they find the {thing}?", "They found the {thing} near {spot}."),
            ("[How did the tale end?|What happened at the end?]", "{hero} found the {thing} again."),
        ],
    ),
    Script(
        name="treasure",
        friend="elder",
        where="village farm wood garden pond sea hill",
        props=[
            prop(find="gold ring", why="It was a gift from my mother"),
            prop(find="silver key", why="Without it, I must sleep outside"),
            prop(find="shiny pearl", why="My brother gave it to me long ago"),
            prop(find="music box", why="It plays the song I love best"),
            prop(find="pocket watch", why="It tells me when it is time for tea"),
            prop(find="brass bell", why="I ring it when supper is ready"),
            prop(find="green stone", why="It has brought me luck for fifty years"),
            prop(find="leather purse", why="I need it to buy bread for the winter"),
        ],
        lessons=[
            "a clean heart is the best treasure",
            "it feels good to give back what is not ours",
            "being honest is worth more than gold",
            "a found thing still belongs to someone",
        ],
        start="""
/
{One_day}, {hero} found {a_find} near {spot}.
{One_day}, something [shone|twinkled] near {spot}. It was {a_find}!
{One_day}, {hero} was [playing|singing|resting] near {spot} when {he} found {a_find}.
{One_day}, {hero} stepped on something hard near {spot}. It was {a_find}!

"What luck!" thought {hero}. {He} wanted to keep it [forever|always].
{hero} wanted to keep it. {He} danced around it three times and bumped into a [bush|tree|rock].
It was the [finest|prettiest] thing {he} had ever seen, and {hero} wanted to keep it.
{hero} wanted to keep it. {He} even thought of a name for it.

/
Then {a_flook} named {friend} came slowly down the path.
Soon {friend}, {a_flook}, came by and looked at the ground.
Just then, {hero} saw {friend}, {a_flook}, looking under a stone.
But then {a_flook} named {friend} came along, shaking {fhis} head.

"I have lost my {find}," said {friend}. "{why}."
"Have you seen my {find}?" asked {friend}. "{why}."
"My {find} is gone," sighed {friend}. "{why}."
"Oh dear, where is my {find}?" said {friend}. "{why}."

?
For a moment, {hero} did not know what to do.
{hero} felt {his} heart go thump, thump, thump.
{hero} looked at the {find}, and then at {friend}.
{hero} did not say a word. {He} was thinking very hard.
""",
        ending="""
/
Then {hero} held out {his} {hand}. "I found this near {spot}," {he} said. "It is yours."
"Here it is," said {hero}. "I kept it safe for you."
"Is this the one?" asked {hero}, and {he} gave the {find} back [at once|with a smile].
{hero} took a deep breath. "I found it," {he} said. "Here, please take it back."

?
{friend} was so happy that {fhe} [danced on the spot|laughed out loud|sang a little song].
"Thank you, {hero}," said {friend}. "You have a good heart."
"What an honest {kind} you are!" said {friend}, and told {hero} a [long|funny] story.
{friend} gave {hero} a sweet red apple, and they [ate|shared] it together.

@lesson

?
@close
""",
        unkind="""
/
{hero} hid the {find} behind {his} back. "I have not seen it," {he} said.
"No, I have not seen it," said {hero}, and {he} hid the {find} [under a leaf|behind a stone].
{hero} held the {find} tight. "I found it, so it is mine," {he} said. "Go away."
"You should be more careful," said {hero}, and {he} kept the {find}.

?
{friend} was so sad that {fhe} [sat down and cried|could not say a word].
{friend} went slowly away, still looking at the ground.
"Please, {hero}," said {friend}, but {hero} only laughed.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} find?", "{hero} found {a_find} near {spot}."),
            ("Who had lost the {find}?", "{friend} had lost the {find}."),
            ("What did {hero} want at first?", "At first, {hero} wanted to keep the {find}."),
            ("[How did the tale end?|What happened at the end?]", "{hero} gave the {find} back to {friend}."),
        ],
    ),
    Script(
        name="little",
        friend="little",
        where="village farm wood garden pond sea hill snow",
        props=[
            prop(plan="go home for supper"),
            prop(plan="play ball with {his} cousins"),
            prop(plan="take a long nap"),
            prop(plan="build a tower of stones"),
            prop(plan="jump over puddles"),
            prop(plan="look for shiny stones"),
            prop(plan="visit {his} grandmother"),
        ],
        lessons=[
            "helping someone small is a big thing",
            "a kind deed is never a waste of time",
            "everyone is little and lost sometimes",
            "home is the best place to bring someone",
        ],
        start="""
/
{One_day}, {hero} wanted to {plan}. {He} hummed a tune on the way.
{One_day}, {hero} was [busy|happy]. {He} wanted to {plan}.
{One_day}, {hero} had a fine plan. {He} wanted to {plan}.
{One_day}, {hero} could think of only one thing. {He} wanted to {plan}.

Then {he} heard a [tiny|small|soft] cry near {spot}.
But then someone began to cry near {spot}.
"[Sniff, sniff|Boo hoo]," said a tiny voice near {spot}.
Near {spot}, {he} heard a very small sound.

/
{A_flook} sat there, all alone. "I am {friend}," said the little one. "I cannot find my mother."
It was {a_flook} named {friend}. "I want to go home," said {friend}, "but I lost the way."
There sat {a_flook} named {friend}, [crying|with big wet eyes]. "I am lost," said {friend}.

?
"I followed a funny cloud," said {friend}. "Then the cloud went away."
"I ran after my own shadow," said {friend}, "and it would not stop."
"I only closed my eyes for a minute," said {friend}.
{friend} was cold and shook like a leaf.

?
It was getting late, and {hero} still wanted to {plan}.
{hero} looked at the sky. The sun was going down, and home was far away.
If {he} stopped to help, {he} could not {plan}. {hero} thought about it.
{hero} thought about {his} nice plan.
""",
        ending="""
/
"Do not be afraid," said {hero}. "I will take you home."
But {hero} did not think for long. "Come with me," {he} said. "We will find your mother."
"Plans can wait," said {hero}. {He} dried the tears of the little one. "Let us go and look."

They walked and listened. At last, someone far away called, "{friend}! {friend}!"
They sang loudly all the way, so that {friend}'s mother could hear them.
They asked a bird, who asked a friend, who knew the way.

{friend}'s mother hugged them both so hard that {hero} [squeaked|laughed].
Soon {friend} was [home|safe] and warm, and {fhis} mother cried happy tears.
{friend}'s mother was waiting. "Thank you, {hero}," said the mother. "You are a true friend."

@lesson

?
@close
""",
        unkind="""
/
"I have no time for lost babies," said {hero}, and {he} {went} away.
But {hero} did not want to help. "Find your own mother," {he} said.
"Stop crying," said {hero}. {He} laughed at the little one. "You are too loud."

{friend} called and called, but {hero} put {his} head in the air and went on.
{friend} was left alone near {spot}, and the night was cold.
"Please help me," said {friend}, but {hero} was already far away.

So {hero} left to {plan}, and {friend} cried until there were no more tears.
{friend}'s mother looked everywhere, and {hero} did not say a word to help.
{hero} was soon warm and happy at home, but {friend} was not.

?
@scorn

@cold
""",
        asks=[
            ("Who was lost?", "{friend} was lost. {friend} was {a_flook}."),
            ("What did {hero} want to do?", "{hero} wanted to {plan}."),
            ("Where did {hero} hear the cry?", "{hero} heard it near {spot}."),
            ("[How did the tale end?|What happened at the end?]", "{hero} helped {friend} find {fhis} mother."),
        ],
    ),
]
