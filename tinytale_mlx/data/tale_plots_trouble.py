"""Plots about trouble of our own making: wishes, big words, lies and quarrels.

How to read them: tale_grammar.py.
"""

from .tale_grammar import Script, prop

PLOTS = [
    Script(
        name="wish",
        friend="peer",
        where="village farm wood garden hill pond sea",
        props=[
            prop(wish="a mountain of pancakes", bad="Pancakes fell from the sky, and {friend} was stuck under one"),
            prop(wish="a very, very long day", bad="The sun did not go down, and {friend} could not sleep at all"),
            prop(wish="all the toys in the world", bad="The toys were piled so high that {friend} was lost in them"),
            prop(wish="a golden spoon", bad="All that it touched turned to gold, and {friend} had nothing to eat"),
            prop(wish="snow in summer", bad="The snow was so deep that only the eyes of {friend} could be seen"),
            prop(wish="music everywhere", bad="The music was so loud that {friend} had to cover {fhis} ears"),
            prop(wish="a bath full of honey", bad="There was honey everywhere, and {friend} was stuck to the floor"),
        ],
        lessons=[
            "too much of a good thing is too much",
            "the best wish is one that helps someone",
            "it is wise to think before you wish",
            "what we have is often just right",
        ],
        start="""
/
{One_day}, {hero} found a [blue|green] stone near {spot}. "Make two wishes," it said.
One night, a star fell down near {spot}. "Make two wishes, {hero}," it said.
{One_day}, {hero} helped a bee near {spot}. "You may have two wishes," said the bee.
{One_day}, {hero} met a tiny fairy near {spot}. "Take two wishes," said the fairy.

{hero} wished for {wish}. Poof! It came true [at once|in a flash].
"I wish for {wish}!" {he} said, and poof, it came true.
"Two wishes!" cried {hero}. {He} asked for {wish}, and {he} got it.
{hero} jumped up and down. {He} wished for {wish}, and it came true.

/
But soon things went wrong. {bad}.
But it did not stop. {bad}.
Then came the trouble. {bad}.

{friend} was {a_flook} and the best friend of {hero}. "Please help me!" said {friend}.
"Oh, {hero}, what have you done?" asked {friend}, who was {a_flook}.
{friend}, {a_flook}, called out, "This is not funny, {hero}!"

Now {hero} had one wish left.
There was one more wish, and {hero} thought about it.
{hero} looked at {friend}. {He} still had one wish.
""",
        ending="""
/
"I know what to do," said {hero}. "I wish that everything was as it was before."
"I could wish for more," said {hero}, "but I wish for {friend} to be happy again."
{hero} closed {his} eyes. "I wish that {friend} was safe and well," {he} said.

Poof! {Area} was quiet again, and {friend} [laughed|smiled|gave a big sigh].
And poof, it was all gone. Only one little crumb of magic was left, and it tickled.
Everything was just as it should be. {friend} hugged {hero} tight.
Poof! "Thank you," said {friend}. "Next time, let us wish for a nap."
Poof, it was all gone. "I am sorry," said {hero}. "You are better than {wish}."
And poof, all was well. "Let us play," said {hero}. "We do not need any magic for that."

@lesson

?
@close
""",
        unkind="""
/
"I want even more," said {hero}. "I wish for twice as much of it."
"I do not care," said {hero}. "I wish for a big crown, just for me."
{hero} closed {his} eyes. "I wish for more, and nothing for {friend}," {he} said.

Poof! It came true, and now things were even worse for {friend}.
And poof, it was done. {friend} began to cry, and {hero} looked away.
The last wish was gone, and {friend} was still in trouble.

?
"Please help me," said {friend}. "No," said {hero}, "I am busy."
"That is your problem," said {hero}. "I got what I wanted."
"You are no friend," said {friend}, and {hero} only shrugged.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} wish for?", "{hero} wished for {wish}."),
            ("What went wrong?", "{bad}."),
            ("How many wishes did {hero} get?", "{hero} got two wishes."),
            ("How did {hero} use the last wish?", "{hero} used it to help {friend}."),
        ],
    ),
    Script(
        name="boast",
        friend="peer",
        where="village farm wood garden hill",
        props=[
            prop(best="strongest", trick="pull up a tree root", trap="rolled backward into a muddy ditch"),
            prop(best="fastest", trick="race with {his} eyes closed", trap="went right into a thick bush"),
            prop(best="cleverest", trick="find a new way through the bushes", trap="got stuck in the thorns"),
            prop(best="bravest", trick="look into the deepest hole", trap="fell in with a loud plop"),
            prop(best="tallest", trick="reach the highest branch", trap="got stuck between two branches"),
            prop(best="best", trick="jump over a puddle", trap="landed in the middle of the mud"),
        ],
        lessons=[
            "big words do not make you big",
            "everyone needs help sometimes",
            "it is better to be kind than to be first",
            "a small friend can be a great help",
        ],
        start="""
/
"I am the {best} {kind} of all," {hero} told everyone.
{hero} thought that {he} was the {best} {kind} in the world, and {he} said so every day.
Every morning, {hero} looked into the water and said, "I am the {best} {kind} there is."

{He} wanted everyone to look at {him} all the time.
{hero} wanted everyone to clap for {him}.
{He} wanted everyone to see how great {he} was.

?
{He} said it to the trees. {He} said it to the clouds. {He} even said it to {his} soup.
After a while, even the [flies|ants|snails] were tired of hearing it.
"That is nice," said {his} mother, "but please eat your peas."

/
{One_day}, {hero} said to {friend}, {a_flook}, "Watch me! I will show you something."
{One_day}, {a_flook} named {friend} came by. "Watch this!" said {hero}.
{One_day}, {hero} wanted to show off for {friend}, {a_flook}.

{He} tried to {trick} near {spot}, but {he} {trap}.
Near {spot}, {he} tried to {trick}. Oh dear! {He} {trap}.

?
"[Help|Oh no]!" cried {hero}. {He} could not move at all.
There {he} was, and {he} could not get out. "Help!" cried {hero}.
{He} pulled and pushed, but it was no use. "Please help!" called {hero}.

"Hold on," said {friend}, and {fhe} pulled {hero} out.
"Give me your {hand}," said {friend}. With one big pull, {hero} was free.
{friend} found a long rope and pulled. Soon {hero} was free.
""",
        ending="""
/
{hero} turned red. "Thank you, {friend}," {he} said. "You did it, not me."
"I am sorry that I talked so big," said {hero}. "You are the one who is great."
"Thank you," said {hero} in a small voice. "I could not do it alone."

?
"Nobody is good at everything," said {friend}, and they laughed about it.
{friend} smiled. "You are very good at falling," {fhe} said, and {hero} laughed too.
Then {hero} clapped for {friend}, and {friend} took a funny bow.

@lesson

?
@close
""",
        unkind="""
/
{hero} did not say thank you. "I did not need you, {friend}," {he} said.
"I am still the {best}," said {hero}. "You only got in my way."
"Look at you," said {hero} with a rude laugh. "Now you are all dirty."

?
Then {hero} told everyone that {he} had saved {friend}, which was a lie.
{friend} asked for a thank you, but {hero} [splashed|threw] mud on {fhim} and laughed.
"Nobody will believe you," said {hero}, and {friend} felt very small.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} say about {himself}?", '{hero} said, "I am the {best} {kind}."'),
            ("What did {hero} try to do?", "{hero} tried to {trick}."),
            ("What went wrong?", "{hero} {trap}."),
            ("Who pulled {hero} out?", "{friend} pulled {hero} out."),
        ],
    ),
    Script(
        name="truth",
        friend="elder",
        where="village farm wood garden hill",
        props=[
            prop(thing="blue cup", play="throwing a ball"),
            prop(thing="clay pot", play="dancing with a broom"),
            prop(thing="glass lamp", play="jumping off a box"),
            prop(thing="honey jar", play="rolling down the hill"),
            prop(thing="flower vase", play="swinging on a rope"),
            prop(thing="little mirror", play="chasing a moth"),
            prop(thing="yellow bowl", play="walking backward"),
            prop(thing="milk jug", play="spinning in circles"),
        ],
        lessons=[
            "the truth is hard to say but light to carry",
            "a true word is better than a clever lie",
            "a mistake gets smaller when you tell the truth",
            "honest words bring friends closer",
        ],
        start="""
/
{One_day}, {hero} was {play} near the house of {friend}, {a_flook}.
Not far away lived {friend}, {a_flook}. {One_day}, {hero} was {play} near {fhis} house.
{One_day}, {hero} went to visit {friend}, {a_flook}. While {he} waited, {he} began {play}.

Crash! Down fell the {thing} that {friend} loved, and it broke.
Crash! {hero} hit something. It was the {thing}, and it broke into [five|a hundred] pieces.
Bang! There went the {thing}. It fell down and broke.

{hero} wanted to run away and hide near {spot}.
{hero} wanted to hide the pieces and run far away.
"Oh no!" thought {hero}. {He} wanted to run away.
{He} wanted to run away, but {his} legs felt like jelly.

/
Soon {friend} came home. "Who broke my {thing}?" {fhe} asked.
Then {friend} came back and stopped. "My {thing}! Who did this?" {fhe} asked.
Just then, the door opened. "Oh dear," said {friend}. "What happened to my {thing}?"

?
A fly sat on the wall and said nothing.
It was so quiet that you could hear a [feather|crumb] fall.
{hero} looked at the sky. {He} looked at the ground.

?
"It was the wind," {hero} wanted to say. The lie was already on {his} tongue.
{hero} could say it was the moon. The moon never talks back.
"You can always tell me the truth," said {friend}. "I will not bite."
{hero} felt hot, and then {he} felt cold.
""",
        ending="""
/
"I did it," said {hero}. "I am sorry, {friend}. It was a mistake."
{hero} took a deep breath. "I broke it," {he} said. "I am so sorry."
Then {hero} looked up and told the truth. "It was me," {he} said.

{friend} was quiet for a moment. "Thank you for telling me," {fhe} said.
"A {thing} can be mended," said {friend}. "I am happy that you told the truth."
{friend} did not shout. "I broke three cups when I was small," {fhe} said.
Together they picked up the pieces, and {hero} found every one.
{hero} helped to clean up, and then they [had|drank] some tea.
They glued it together, and it looked quite funny.

@lesson

?
@close
""",
        unkind="""
/
"I did not do it," said {hero}. "It was somebody else, and I saw it."
{hero} shook {his} head. "It was not me," {he} said. "Go and ask someone else."
Then {hero} looked away and told a lie. "It was the neighbor," {he} said.

{friend} believed it and was angry at the wrong one, and {hero} kept quiet.
{friend} had to pick up all the pieces alone, while {hero} went out to play.
"How sad," said {hero}, and {he} hid a smile while {friend} began to cry.

?
@scorn

@cold
""",
        asks=[
            ("What broke?", "The {thing} of {friend} broke."),
            ("What was {hero} doing when it broke?", "{hero} was {play}."),
            ("What did {hero} want to do at first?", "At first, {hero} wanted to run away."),
            ("[How did the tale end?|What did {hero} do in the end?]", "{hero} told {friend} the truth."),
        ],
    ),
    Script(
        name="quarrel",
        friend="peer",
        where="village farm wood garden pond sea hill snow",
        props=[
            prop(about="who was taller"),
            prop(about="what to call a little snail"),
            prop(about="who should go first"),
            prop(about="a stick that looked like a sword"),
            prop(about="whose turn it was to be king"),
            prop(about="a cloud that looked like a sheep"),
            prop(about="the last piece of cake"),
            prop(about="how to build a tower"),
        ],
        lessons=[
            "sorry is a small word with big power",
            "a friend is worth more than being right",
            "every quarrel can have a good end",
            "it takes courage to say sorry",
        ],
        start="""
/
{hero} had a good friend named {friend}, {a_flook}. They played together every day.
{hero} and {friend}, {a_flook}, were the best of friends.
The best friend of {hero} was {friend}, {a_flook}.

But {one_day}, they had a quarrel. It was about {about}.
But {one_day}, they began to quarrel about {about}.
Then {one_day}, they shouted at each other. The quarrel was about {about}.

?
"You are wrong!" cried {hero}. "No, you are wrong!" cried {friend}.
"I will never play with you again!" said {hero}, and {friend} said the same.
They shouted until the birds flew away. Then each of them went home.
{friend} went left, {hero} went right, and nobody looked back.

/
{hero} sat down near {spot}. It was boring to play alone.
{hero} tried to play alone near {spot}, but nobody laughed at {his} jokes.
Near {spot}, {hero} kicked a stone. The stone was not a good friend.

{He} missed {friend} and wanted to make up.
"I miss {friend}," {he} thought. {He} wanted to make up.
{hero} was still a little angry, but {he} wanted to be friends again.

?
"Someone has to be first to say sorry," said {his} mother.
"A quarrel is like a knot," said {his} grandfather. "Pull gently, and it will open."
"Being right is no fun if you are alone," said {his} father.

Just then, {friend} came down the path with red eyes.
Then {he} saw {friend}, who was sitting alone and looking at the sky.
Later that day, there was a knock on the door. It was {friend}.
""",
        ending="""
/
"I am sorry," said {hero}. "I do not want to fight with you."
{hero} {went} to {friend} at once. "I was silly," {he} said. "I am sorry."
"I am sorry," they both said at the same time, and then they had to laugh.

?
"I am sorry too," said {friend}. "Can we be friends again?"
{friend} dried {fhis} eyes and smiled. "I missed you," {fhe} said.
"I do not even remember how it began," said {friend}.

@lesson

?
@close
""",
        unkind="""
/
"Go away," said {hero}. "I do not want to see you."
{hero} turned {his} back to {friend}. "I was right," {he} said. "You were wrong."
"I found a better friend," said {hero}, but that was only a lie.

?
"I am sorry," said {friend}. "I do not care," said {hero}.
{friend} dried {fhis} eyes and waited, but {hero} said nothing.
"Please, let us make up," said {friend}, but {hero} shook {his} head.

?
@scorn

@cold
""",
        asks=[
            ("What was the quarrel about?", "The quarrel was about {about}."),
            ("Who was the friend of {hero}?", "The friend was {friend}, {a_flook}."),
            ("What did {hero} want after the quarrel?", "{hero} wanted to be friends with {friend} again."),
            ("[How did the tale end?|What happened at the end?]", "{hero} and {friend} made up."),
        ],
    ),
]
