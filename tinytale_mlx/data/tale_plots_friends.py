"""Plots about friends: meeting, sharing, racing and helping a stranger.

How to read them: tale_grammar.py.
"""

from .tale_grammar import Script, prop

PLOTS = [
    Script(
        name="friend",
        friend="peer",
        where="village farm wood garden pond sea hill snow",
        props=[
            prop(game="hide and seek"),
            prop(game="leapfrog"),
            prop(game="catch the ball"),
            prop(game="follow the leader"),
            prop(game="the guessing game"),
            prop(game="kings and queens"),
            prop(game="pirates"),
            prop(game="tag"),
        ],
        lessons=[
            "one small hello can start a friendship",
            "shy friends are worth waiting for",
            "a new friend is the best surprise",
            "kind words open doors",
        ],
        start="""
/
{One_day}, {a_flook} named {friend} came to live near {spot}.
{One_day}, someone new came to {area}. It was {friend}, {a_flook}.
{One_day}, {hero} saw {a_flook} sitting all alone near {spot}. It was {friend}, who was new there.

?
{friend} was [very|so] shy that {fhe} looked only at the ground.
{friend} was too shy to say a word. {Fhe} drew a circle on the ground.
{friend} tried to hide, but anyone could see {fhim}.

{hero} wanted to make friends, but {he} did not know how to begin.
{hero} wanted to make friends with {friend}.
"I want to make friends," said {hero}, "but what should I say?"

/
"Just say hello," said {his} mother. "It is a small word, but it works."
"Start with hello," said {his} father. "The rest comes by itself."
"When I was young," said {his} grandmother, "I just shared my lunch."

So {hero} {went} over to {friend}. "Hello! Do you want to play {game}?" {he} asked.
{hero} took three big steps and one small one. "Shall we play {game}?" {he} asked.
"Hello," said {hero}, and {his} voice [squeaked|shook] a little. "Do you like to play {game}?"

?
{friend} looked left and right to see if someone else was meant.
{friend} opened {fhis} mouth and closed it again.
For a while, {friend} was as quiet as a [stone|cloud].

"I do not know how to play {game}," said {friend}.
"I would like to," said {friend}, "but I am not very good at it."
"Nobody ever asked me before," said {friend}. "I do not know how to play."
""",
        ending="""
/
"I will show you," said {hero}. "It is easy, and it is fun to make mistakes."
"Do not worry," said {hero}. "I was bad at it too, when I started."
{hero} smiled. "Then we can learn it together," {he} said.

They played {game} until the sun went down, and {friend} won [twice|three times].
First {friend} giggled, then {friend} laughed, and then they could not stop.
They fell over, they jumped up, and they played until it was time for supper.

@lesson

?
@close
""",
        unkind="""
/
"Then go away," said {hero}. "I only play with those who are good at it."
"Forget it," said {hero}. "I do not want to play with a baby."
{hero} laughed. "Everyone knows how to play that," {he} said.

{hero} played {game} with the others, and {friend} had to watch from far away.
{hero} pointed at {friend} and made a rude face, and {friend} began to cry.
{friend} went back to {spot} and sat down alone, and {hero} did not follow.

?
@scorn

@cold
""",
        asks=[
            ("Who was new and shy?", "{friend} was new and shy. {friend} was {a_flook}."),
            ("What did {hero} want?", "{hero} wanted to make friends."),
            ("What did {hero} ask {friend} to play?", "{hero} asked {friend} to play {game}."),
            ("[How did the tale end?|What happened at the end?]", "{hero} and {friend} played together."),
        ],
    ),
    Script(
        name="share",
        friend="peer",
        where="village farm wood garden pond hill",
        children_also="sea snow",
        props=[
            prop(food="plum pie", smell="butter and sugar"),
            prop(food="loaf of warm bread", smell="a cozy kitchen"),
            prop(food="basket of berries", smell="summer"),
            prop(food="pot of soup", smell="carrots and onions"),
            prop(food="bag of roasted nuts", smell="a winter fire"),
            prop(food="apple cake", smell="apples and honey"),
            prop(food="bowl of cherries", smell="sunshine"),
            prop(food="plate of pancakes", smell="milk and honey"),
        ],
        lessons=[
            "food tastes best when it is shared",
            "half a treat with a friend is better than a whole one alone",
            "sharing makes two hearts happy",
            "there is always enough for one more",
        ],
        start="""
/
{One_day}, {hero} got {a_food} from {his} grandmother.
{One_day}, {hero} carried {a_food} to {spot} for lunch.
{One_day}, {hero} sat down near {spot} with {a_food}.

It smelled like {smell}, and {he} wanted to eat it all.
{He} wanted to eat it all, every last bite. It smelled like {smell}.
It smelled like {smell}. "This is all for me," said {hero}, who wanted to eat it all.

/
@meet

{friend} sniffed the air. "I have not eaten since [yesterday|the morning]," {fhe} said.
"Oh, that smells good," said {friend}. {Fhis} tummy growled like thunder.
"Is that {a_food}?" asked {friend}, whose tummy was quite empty.

"May I have a little?" asked {friend} [softly|with big eyes].
"Could I try a small piece?" asked {friend}. "Just a very small one?"
"You do not need to give me any," said {friend}, but {fhis} tummy said something else.

?
{hero} held the food tight. If {he} shared, there would be less for {him}.
{hero} looked at the food. It was not very big, and {he} was very hungry.
{hero} counted the bites. There were just enough for one.
"Hmm," said {hero}. {He} moved the food a little closer to {himself}.
""",
        ending="""
/
Then {hero} saw how hungry {friend} was. "Come, sit with me," {he} said. "Half of it is for you."
"Here," said {hero}, and {he} gave {friend} the bigger half.
{hero} smiled. "It is more fun with two," {he} said, and {he} shared everything.

?
They ate and ate until there was only one crumb left. They gave it to an ant.
"This is the best day of the week," said {friend} with a full mouth.
The next day, {friend} brought a jar of jam, and they shared that too.
They told each other jokes, and {friend} laughed until {fhe} got the hiccups.

@lesson

?
@close
""",
        unkind="""
/
Then {hero} turned {his} back. "Find your own food," {he} said. "This is all mine."
"No," said {hero}, and {he} ate it all in front of {friend}.
{hero} laughed. "You are too late," {he} said, and {he} shared nothing.

?
{He} ate and ate until there was only one crumb left. Then {he} ate that too.
"Go and be hungry somewhere else," said {hero} with a full mouth.
The next day, {friend} was still hungry, and {hero} told {fhim} how good it was.
{friend} watched every bite with sad eyes, but {hero} did not stop.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} have to eat?", "{hero} had {a_food}."),
            ("Who was hungry?", "{friend} was hungry. {friend} was {a_flook}."),
            ("What did {hero} want at first?", "At first, {hero} wanted to eat it all."),
            ("[How did the tale end?|What did {hero} do in the end?]", "{hero} shared the food with {friend}."),
        ],
    ),
    Script(
        name="stranger",
        friend="elder",
        where="village farm wood garden pond hill",
        props=[
            prop(event="the spring fair", load="a heavy basket", inside="honey cakes for everyone"),
            prop(event="the summer party", load="a long wooden box", inside="a fiddle and two flutes"),
            prop(event="the big picnic", load="a huge sack", inside="apples, cheese and bread for all"),
            prop(event="the lantern walk", load="a big round bundle", inside="a hundred paper lanterns"),
            prop(event="the puppet show", load="an old trunk", inside="all the puppets for the show"),
            prop(event="the harvest dance", load="a cart full of bags", inside="a drum, a horn and a pot of soup"),
        ],
        lessons=[
            "kindness always finds its way back",
            "the person you help may surprise you",
            "there is always time to be kind",
            "a stranger can become a friend",
        ],
        start="""
/
It was the day of {event}. {hero} wanted to be there before anyone else.
{hero} had waited all year for {event}. {He} wanted to be the first one there.
{One_day}, {hero} was on {his} way to {event}. {He} wanted to be there early.

?
{He} had washed {his} face, and even behind {his} ears.
{He} had not slept all night, because {he} was so excited.
{He} sang a song with only one word, and the word was hooray.

/
Near {spot}, {he} met a stranger. It was {a_flook} with {load}.
On the way, {he} saw {a_flook} near {spot}. The stranger had {load} and could not go on.
But near {spot} stood {a_flook} with {load}, puffing like a [kettle|steam train].

"I am {friend}," said the stranger. "Can you help me with this?"
"I am {friend}, and this is too heavy for me," said the stranger.
"I am {friend}, and I am so tired," said the stranger. "Please help me."

?
"I will be late," thought {hero}.
From far away, {hero} could hear the [music|laughter] start.
{hero} looked down the road. Everyone else was already there.
{hero} hopped from one foot to the other. "If I stop, I will be late," {he} thought.
""",
        ending="""
/
"Of course I will help," said {hero}, and together they lifted and pulled.
But {hero} stopped. "Let me take this side," {he} said, "and you take that one."
"I can carry a lot," said {hero}. "Where do you need to go?"

"To {event}," said {friend}. When they got there, {friend} opened it up. It held {inside}!
"To {event}, like you," said {friend}. And what was the load? It held {inside}!

?
"They could not start without us," laughed {friend}, and everyone cheered for {hero}.
{hero} was late, but so was the fun. {friend} gave {him} the best [place|seat] of all.
"You may be first," said {friend}, "because you stopped for me."

@lesson

?
@close
""",
        unkind="""
/
"I have no time for you," said {hero}, and {he} pushed past the stranger.
But {hero} did not stop. "You should not carry so much," {he} said.
"Ask someone else," said {hero}. "I do not help strangers."

"Please," said {friend}, but {hero} only [laughed|walked faster]. Soon {friend} was far behind.
{friend} sat down on the road, too tired to go on. {hero} saw it and did not turn back.

?
{hero} got to {event} early, and {he} took the best place for {himself}.
{hero} told the others about the slow stranger, and {he} made fun of {friend}.
When {friend} came at last, {hero} did not even make room on the bench.

?
@scorn

@cold
""",
        asks=[
            ("Where did {hero} want to go?", "{hero} wanted to go to {event}."),
            ("Who was the stranger?", "The stranger was {friend}, {a_flook}."),
            ("Where did {hero} meet the stranger?", "{hero} met the stranger near {spot}."),
            ("What did {friend} have with {fhim}?", "{friend} had {load}. It held {inside}."),
        ],
    ),
    Script(
        name="race",
        friend="peer",
        where="village farm wood garden hill pond sea snow",
        props=[
            prop(prize="blue ribbon"),
            prop(prize="golden cup"),
            prop(prize="huge honey cake"),
            prop(prize="silver bell"),
            prop(prize="basket of plums"),
            prop(prize="shiny medal"),
            prop(prize="red flag"),
            prop(prize="warm new scarf"),
        ],
        lessons=[
            "a friend is better than a prize",
            "you can lose a race and still win a friend",
            "helping is the best way to win",
            "a good heart is faster than fast legs",
        ],
        start="""
/
{One_day}, there was a big race all around {area}. The prize was {a_prize}.
Everyone in the land was talking about the big race. The prize was {a_prize}.
Once a year, there was a race to {spot} and back. The prize was {a_prize}.

{hero} wanted to win. {He} had practiced every day, even in the rain.
{hero} wanted to win more than anything.
"I want to win," said {hero}, and {he} ate a very big breakfast.

/
Next to {him} stood {friend}, {a_flook}. "Good luck, {hero}!" said {friend}.
{friend}, {a_flook}, was in the race too. "May the best one win," said {friend} with a smile.
{A_flook} named {friend} stood beside {him}. "I hope we both have fun," said {friend}.

"Ready, steady, go!" called a loud voice, and off they went.
"Three, two, one, go!" The race began, and the dust flew.
A [horn|whistle] blew, and everyone rushed ahead.

?
{hero} was fast, and soon only {friend} was beside {him}.
Soon {hero} was in front, and {friend} was close behind.
At first {friend} was in front, and then {hero} was.

?
A worm cheered for them, but very quietly.
The wind was in {his} face, and {his} heart beat like a drum.
{His} grandmother cheered so loudly that the birds flew away.

Then {friend} [slipped|tripped] near {spot} and fell with a bump. "Ouch, my leg!" cried {friend}.
Suddenly, there was a bump. {friend} had fallen near {spot}. "I cannot get up," said {friend}.
Then, near {spot}, {friend} fell over a stone. "Oh, that hurts!" cried {friend}.

?
{hero} could already see the end of the race.
The end of the race was so close, and nobody was in front of {hero}.
There was no one ahead of {hero}. The prize was almost {hero}'s.
""",
        ending="""
/
But {hero} stopped and went back. "Hold on to me," {he} said.
{hero} turned around at once. "I will not leave you here," {he} said.
"The prize can wait," said {hero}, and {he} helped {friend} to get up.

Slowly, side by side, they came to the end. They were the very last.
They sang a silly song and came in last, and {friend} was smiling again.
Everyone else was faster, but {hero} did not mind. {He} held {friend} up all the way.
Everyone cheered for {hero} and {friend}, louder than for the winner.
"You did not win the {prize}," said {friend}, "but you are my hero."
And the winner shared the prize with {hero}, because it was only fair.

@lesson

?
@close
""",
        unkind="""
/
But {hero} did not stop. "Too bad for you," {he} said.
{hero} looked back and laughed. "Now I will win," {he} said.
"You should look where you go," said {hero}, and {he} went on without {friend}.

{friend} had to sit in the dust and wait, and {hero} won the {prize}.
{hero} won the {prize} and held it up high, but nobody cheered at all.
{hero} came in first. {He} took the {prize}, and {he} did not even look at {friend}.

?
"You all lost, and I won," said {hero}, and {he} danced around poor {friend}.
When {friend} came in last, {hero} pointed at {fhim} and laughed out loud.
Everyone else went to help {friend}, but {hero} only looked at the prize.

?
@scorn

@cold
""",
        asks=[
            ("What was the prize?", "The prize was {a_prize}."),
            ("What did {hero} want?", "{hero} wanted to win."),
            ("Who fell in the race?", "{friend} fell near {spot}."),
            ("[Why did {hero} not win?|What did {hero} do when {friend} fell?]", "{hero} stopped to help {friend}."),
        ],
    ),
]
