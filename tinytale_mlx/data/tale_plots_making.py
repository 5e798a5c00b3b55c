"""Plots about making: seeds, broken toys, gifts and heavy work for many hands.

How to read them: tale_grammar.py.
"""

from .tale_grammar import Script, prop

PLOTS = [
    Script(
        name="seed",
        friend="elder",
        where="village farm wood garden hill",
        props=[
            prop(plant="sunflower", grown="a tall sunflower with a golden face"),
            prop(plant="pumpkin", grown="a fat orange pumpkin, as round as the moon"),
            prop(plant="bean", grown="a green bean plant that climbed up and up"),
            prop(plant="strawberry", grown="a small plant with three red strawberries"),
            prop(plant="apple", grown="a tiny apple tree with two shiny leaves"),
            prop(plant="tomato", grown="a plant with one big red tomato"),
            prop(plant="melon", grown="a sweet melon with green stripes"),
        ],
        lessons=[
            "good things need time",
            "waiting is also a way of working",
            "a seed cannot be hurried",
            "the best things grow slowly",
        ],
        start="""
/
{One_day}, {friend}, {a_flook}, gave {hero} {a_plant} seed.
{One_day}, {hero} met {a_flook} named {friend}, who gave {him} {a_plant} seed.
{One_day}, {hero} got a present. It was {a_plant} seed from {friend}, {a_flook}.

"Give it water, sun and time," said {friend}.
"Plant it, water it and wait," said {friend}. "Waiting is the hardest part."
"Inside this seed sleeps something big," said {friend}. "Do not wake it too soon."
"It may look like a crumb," said {friend}, "but please do not eat it."

{hero} planted it near {spot}. {He} wanted to see it grow [right away|at once].
{hero} planted the seed near {spot}. {He} wanted to see it grow.
So {hero} planted it near {spot}. {He} wanted to see it grow before lunch.

/
The next day, nothing was there. The day after that, there was still nothing.
Every morning {hero} looked, and every morning there was only [dirt|mud|brown earth].
Three days passed, and all {he} saw was a worm. The worm said nothing.
{He} watered it on Monday, on Tuesday and on Wednesday, but nothing happened.

?
{He} sang to it and told it jokes, but the seed did not laugh.
"Hello, seed," {he} said each day. "Are you awake?"
"Please hurry," {hero} told the ground.
{He} sat down beside it and counted to a hundred.

?
By the end of the week, {hero} was tired of waiting. "Shall I dig it up?" {he} thought.
"Maybe it forgot how to grow," said {hero}. {He} [almost|nearly] dug it up.
{hero} began to feel cross. "This seed is asleep," {he} said.
""",
        ending="""
/
But {he} remembered the words of {friend} and waited [one more day|a little longer].
{hero} asked {friend}, and {friend} only smiled. So {hero} kept on waiting.
"No," said {hero} at last. "I will give it time." And {he} brought more water.

Then one morning, there was something green! Soon it was {grown}.
It rained, and the sun shone. At last, there stood {grown}!
And one fine day, {hero} rubbed {his} eyes. There was {grown}!

?
"Come and see, {friend}!" called {hero}, and they [danced|clapped|laughed] together.
{hero} {went} to {friend} to share the good news, and {friend} was proud.
"You waited well," said {friend}, and {hero} stood very tall.

@lesson

?
@close
""",
        unkind="""
/
{hero} dug up the seed and threw it [away|into the bushes]. {He} did not wait one more day.
{hero} went to {friend} and shouted, "You gave me a bad seed!"
"You are a silly seed," said {hero} at last. {He} stepped on it hard.

{friend} was sad to see it, but {hero} only [laughed|shouted]. "Keep your seeds," {he} said.
Then {he} pulled up the flowers that {friend} had planted with so much love.
And {hero} told everyone that {friend} was a liar, which was not true at all.

?
"It would have grown," said {friend}, but {hero} did not want to listen.
{hero} went home with a cross face, and {friend} was left with an empty pot.
"You did not wait," said {friend}, and {hero} turned {his} back.

?
@scorn

@cold
""",
        asks=[
            ("What did {friend} give to {hero}?", "{friend} gave {hero} {a_plant} seed."),
            ("Where did {hero} plant the seed?", "{hero} planted the seed near {spot}."),
            ("What did {hero} want?", "{hero} wanted to see the seed grow."),
            ("[How did the tale end?|What grew from the seed?]", "In the end, there was {grown}."),
        ],
    ),
    Script(
        name="mend",
        friend="elder",
        where="village farm wood garden hill",
        props=[
            prop(toy="wooden horse", crack="one leg came off", fix="a drop of glue and a tiny nail"),
            prop(toy="toy boat", crack="the mast broke in two", fix="some glue and a bit of string"),
            prop(toy="rag doll", crack="one arm came off", fix="a needle and some red thread"),
            prop(toy="music box", crack="the handle came off", fix="a small screw and a drop of oil"),
            prop(toy="paper kite", crack="it got a big hole", fix="some paste and a piece of old newspaper"),
            prop(toy="little drum", crack="the top got a hole", fix="some glue and a round piece of cloth"),
            prop(toy="toy train", crack="a wheel came off", fix="a new nail and a drop of oil"),
        ],
        lessons=[
            "a mended thing can be dearer than a new one",
            "broken does not mean lost",
            "a thing is beautiful when we care for it",
            "busy hands and love can fix a lot",
        ],
        start="""
/
{One_day}, {hero} dropped {his} [favorite|best] {toy}, and {crack}.
{One_day}, {hero} heard a loud crack. {His} {toy} had fallen down, and {crack}.
{One_day}, {hero} fell over {his} own {toy}, and {crack}.
{One_day}, {hero} played too wildly with {his} {toy}, and {crack}.

{hero} [cried a little|was very sad]. {He} wanted {his} {toy} to be whole again.
"Oh no!" said {hero}. {He} wanted {his} {toy} to be whole again.
{He} tried to fix it with jam, but jam is not glue. {hero} wanted it to be whole again.

/
So {he} took it to {friend}, {a_flook} who lived near {spot}.
Near {spot} lived {a_flook} named {friend}, who could mend almost anything.
{His} mother said, "Ask {friend}." {friend} was {a_flook} who knew how to mend things.

?
"Can you make it better?" asked {hero}. "I will try," said {friend}.
"Let me see," said {friend}. "A broken toy is only a tired toy."
"Please, can you help my {toy}?" asked {hero}. "Sit down," said {friend}. "We need to be patient."

{friend} took {fix}, and worked [all morning|until the tea was cold|with great care].
With {fix}, {friend} mended the {toy} and hummed a tune.
{friend} found {fix}, and {fhe} worked slowly, with one eye closed.

?
When the {toy} was done, it had a small crooked mark on it.
At last the {toy} was whole, but anyone could see where it had been broken.
"There," said {friend}. The {toy} was whole, but it did not look quite new.
""",
        ending="""
/
"I love it even more now," said {hero}. "It looks like it has a smile."
{hero} held the {toy} close. "It is the best {toy} in the world," {he} said.
"Now it has a story to tell," said {hero}, and {he} hugged {friend}.

?
To say thank you, {hero} [swept the floor|brought fresh water|picked some flowers] for {friend}.
Then {hero} stayed to help {friend} tidy up, and they [sang|told jokes] as they worked.
The next day, {hero} came back with a basket of [plums|berries|nuts] for {friend}.

@lesson

?
@close
""",
        unkind="""
/
"It looks ugly now," said {hero}. "You did a bad job."
{hero} pushed the {toy} away. "I want a new one," {he} said.
"Is that all you can do?" said {hero}, and {he} laughed at {friend}.

?
{He} did not say thank you, and {he} kicked over the tools that belonged to {friend}.
Then {hero} left {friend} with all the mess, and {he} shut the door with a bang.
The next day, {hero} told everyone that {friend} could not mend a thing.

?
@scorn

@cold
""",
        asks=[
            ("What was broken?", "{hero}'s {toy} was broken."),
            ("Who mended the {toy}?", "{friend} mended the {toy}."),
            ("What did {hero} want?", "{hero} wanted {his} {toy} to be whole again."),
            ("How was the {toy} mended?", "{friend} mended it with {fix}."),
        ],
    ),
    Script(
        name="gift",
        friend="peer",
        where="village farm wood garden hill",
        props=[
            prop(gift="scarf", flaw="it was much too long", love="Now we can wear it together"),
            prop(gift="honey cake", flaw="it was as flat as a plate", love="A flat cake is easy to share"),
            prop(gift="picture", flaw="it had a big blue spot on it", love="I like the blue spot best"),
            prop(gift="toy boat", flaw="it was a little crooked", love="It will sail in circles, and I like circles"),
            prop(gift="flower crown", flaw="half of the flowers had fallen off", love="It is as light as air"),
            prop(gift="paper hat", flaw="it was far too big", love="Now I have a hat and a tent"),
            prop(gift="cherry pie", flaw="it was burnt on one side", love="I will eat the other side first"),
        ],
        lessons=[
            "the love inside a gift is the best part",
            "a gift does not need to be perfect",
            "something made with love is always good enough",
            "friends look at the heart first",
        ],
        start="""
/
{One_day}, it was the birthday of {friend}, {a_flook}.
{One_day}, {hero} heard that it was {friend}'s birthday. {friend} was {a_flook} who lived near {spot}.
{One_day}, {hero} remembered that {friend}, {a_flook}, had a birthday.

{hero} wanted to make {fhim} {a_gift}.
{hero} wanted to make {a_gift} for {friend}, all by {himself}.
"I know!" said {hero}. {He} wanted to make {a_gift}.

/
{He} worked very hard, but when it was done, {flaw}.
{hero} worked until {his} back hurt. But in the end, {flaw}.
It took all morning, and {hero} sang as {he} worked. But {flaw}.

?
"Oh no," [sighed|said] {hero}. "It is not good enough."
"What will {friend} think?" said {hero}, and {his} cheeks grew hot.
{hero} wanted to hide it [under the bed|in a box] and say {he} was sick.

?
"A gift is not a test," said {his} mother. "Go and be merry."
"Give it with a smile," said {his} mother. "A smile fixes a lot."
"The love in it is just right," said {his} grandfather. "Go now, or you will be late."

So {hero} {went} to the party. "Is that for me?" asked {friend}.
The party had begun. "What have you got there?" asked {friend}.
{friend} opened the door and looked at the gift. "Oh! What is it?" asked {friend}.
""",
        ending="""
/
"I made it for you," said {hero}. "I am sorry that it is not perfect."
"It is for you," said {hero}. "It is not perfect, but I made it with love."
{hero} held it out. "Happy birthday, {friend}," {he} said softly.

{friend} looked at it for a long time. "{love}," said {friend}.
"{love}," cried {friend}, and {fhe} gave {hero} a big hug.
"Nobody ever made me {a_gift} before," said {friend}. "{love}."

@lesson

?
@close
""",
        unkind="""
/
"It is not for you," said {hero}. "I will keep it for myself."
"You do not need a gift," said {hero}. "You already have a cake."
{hero} hid it away. "I have nothing for you, {friend}," {he} said loudly.

Then {hero} ate the biggest piece of cake and went home without a word.
{friend} looked down, and {hero} took three cakes from the table and left.
"I only came for the food," said {hero}, and {friend} had to blink away a tear.

?
@scorn

@cold
""",
        asks=[
            ("Whose birthday was it?", "It was {friend}'s birthday."),
            ("What did {hero} make?", "{hero} made {a_gift} for {friend}."),
            ("What was wrong with the {gift}?", "It was not perfect, because {flaw}."),
            ("[How did the tale end?|What happened at the end?]", "{hero} gave {friend} the {gift}."),
        ],
    ),
    Script(
        name="together",
        friend="peer",
        where="village farm wood garden hill",
        props=[
            prop(thing="giant pumpkin", job="pull it out of the ground", use="a big pot of pumpkin soup"),
            prop(thing="giant turnip", job="pull it out of the earth", use="enough stew for the whole week"),
            prop(thing="huge melon", job="roll it home", use="the sweetest supper of the summer"),
            prop(thing="big round cheese", job="push it home", use="a hundred cheese sandwiches"),
            prop(thing="giant carrot", job="pull it out of the earth", use="carrot cake for the whole week"),
            prop(thing="barrel of apples", job="roll it home", use="seven apple pies"),
        ],
        lessons=[
            "together we are strong",
            "many small pulls make one big pull",
            "hard work is light work with friends",
            "we can do more together than alone",
        ],
        start="""
/
{One_day}, {hero} found {a_thing} near {spot}. {He} wanted to {job}.
{One_day}, {hero} saw something big near {spot}. It was {a_thing}! {He} wanted to {job}.
{One_day}, there was {a_thing} near {spot}. {hero} wanted to {job}.

?
{He} pulled and pushed, but the {thing} did not move.
{He} tried from the left and {he} tried from the right. The {thing} stayed where it was.
{He} tried until {his} face was red, but the {thing} only sat there.
"Move, please," said {hero}. The {thing} did not listen.

/
@meet

"I will help you," said {friend}. "One, two, three, go!"
"Let me help," said {friend}. "I am stronger than I look."
"Two are better than one," said {friend}, and {fhe} got to work.

?
They worked as hard as they could, but they needed one more.
Together they tried again. It moved a little, and then it stopped.
It shook, but that was all. "We need more help," said {friend}.

Then a tiny ant came by. "May I help too?" asked the ant.
"Maybe I can help," said a very small beetle. Nobody thought that it could.
A little worm looked out of the ground. "I will help too," said the worm.

They all tried once more, and suddenly the {thing} began to move!
They counted to three. Plop! The {thing} was free.
They all tried again, and this time the {thing} moved!
""",
        ending="""
/
"It belongs to all of us," said {hero}. So they made {use} and shared it.
"We did it!" cried {hero}. They had {use}, and there was enough for everyone.
"Come to my house," said {hero}. They made {use}, and everyone came.

?
Even the smallest helper got a big part and sat in the best chair.
"I did it, I did it," sang the smallest helper, and {friend} laughed until {fhe} cried.
{friend} told everyone how it happened, and each time the tale grew bigger.

@lesson

?
@close
""",
        unkind="""
/
"It belongs to me," said {hero}. So {he} had {use}, and {he} shared it with nobody.
"I did it!" cried {hero}. {He} made {use}, and {he} gave nothing to anyone.
"Go home now," said {hero}. {He} made {use} and shut the door.

?
The helpers stood outside, tired and hungry, and {hero} pulled the curtain closed.
"We helped you," said {friend}, but {hero} told {fhim} to stop talking.
{friend} asked for a small part, and {hero} only laughed at {fhim}.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} find?", "{hero} found {a_thing} near {spot}."),
            ("What did {hero} want to do with the {thing}?", "{hero} wanted to {job}."),
            ("Who helped {hero}?", "{friend} helped {hero}, and so did someone very small."),
            ("[How did the tale end?|What happened at the end?]", "In the end, they shared {use}."),
        ],
    ),
]
