"""Plots about courage: storms, noises in the night and new skills.

How to read them: tale_grammar.py.
"""

from .tale_grammar import Script, prop

PLOTS = [
    Script(
        name="storm",
        friend="peer",
        where="village farm wood garden hill",
        children_also="sea",
        props=[
            prop(stuck="stuck in the mud"),
            prop(stuck="lost in the dark"),
            prop(stuck="caught between two rocks"),
            prop(stuck="cold and tired and all alone"),
            prop(stuck="too scared to move"),
        ],
        lessons=[
            "being brave means helping even when you are scared",
            "a storm is smaller when you are not alone",
            "even a small heart can be very brave",
            "thunder is only noise, but a friend is a friend",
        ],
        start="""
/
One [dark|wild|windy] night, a storm came. The wind howled.
One [dark|windy] evening, a storm began. Boom, went the thunder!
One night, a storm shook {area}, and the rain fell hard.
One night, there was lightning. It was the biggest storm of the year.

{hero} wanted to stay in bed until the storm was over.
{hero} hid {his} head under the blanket. {He} wanted to stay there until morning.
"I do not like thunder," said {hero}. {He} wanted to stay safe and warm.
{hero} was so scared that {his} knees knocked. {He} wanted to hide until morning.

/
"Help!" called {friend}, {a_flook}. {friend} was {stuck} near {spot}.
Then {he} heard {friend}, {a_flook}, calling for help, {stuck} near {spot}.
But out in the rain, near {spot}, was {friend}, {a_flook}, {stuck}.

?
The wind blew again, and something fell down with a crash.
Boom! The thunder was so loud that even the stones seemed to jump.
The lightning flashed, and for a moment the night was as bright as day.

"I am scared," whispered {hero}. "So am I," said {his} mother, "but two can be brave together."
"I cannot go out there," said {hero}. "We can go together," said {his} father. "Hold on to me."
"What if I fall?" asked {hero}. "Then you will get up again," said {his} grandmother.
"The storm is too big," said {hero}. "A storm is only weather," said {his} mother.

?
{hero} looked at the dark night and swallowed hard.
{hero} shook from head to toe.
{hero} thought about the rain, and then {he} thought about {friend}.
Again {friend} called, and {hero} had to choose.
""",
        ending="""
/
Then {hero} {went} out into the rain. "I am coming, {friend}!" {he} called.
"I will go," said {hero}, and out {he} went into the wind and the rain.
{hero} took a deep breath and stepped outside. "Do not worry, {friend}!" {he} shouted.

Step by step, {he} reached {friend} and brought {fhim} home.
The wind pushed, but {hero} pushed back. Soon {friend} was safe inside.
{hero} [held out|stretched out] {his} {hand}, and {friend} held on tight all the way home.

?
They [drank|had] hot soup and laughed at the thunder. "Boom yourself!" said {friend}.
When they were dry, {friend} said, "You are the bravest {kind} I know."
Soon they were dry and warm, and they counted the lightning like stars.

@lesson

?
@close
""",
        unkind="""
/
"I am not going," said {hero}. {He} pulled the blanket over {his} ears.
"Somebody else can help," said {hero}, and {he} closed the door.
{hero} turned over in bed. "It is too wet for me," {he} said.

{friend} called all night, but {hero} only [hummed a song|put a pillow on {his} head].
{friend} had to wait in the rain until morning, and nobody came.
"Be quiet, {friend}!" shouted {hero}. "I want to sleep."

?
In the morning, {friend} was sick, and {hero} said that it was not important.
Then {hero} ate hot soup, and {friend} was cold and had none.
The next day, {hero} laughed at {friend} because {fhe} was still wet.

?
@scorn

@cold
""",
        asks=[
            ("Who needed help in the storm?", "{friend} needed help. {friend} was {stuck}."),
            ("Where was {friend}?", "{friend} was near {spot}."),
            ("What was {hero} afraid of?", "{hero} was afraid of the storm."),
            ("[How did the tale end?|What did {hero} do?]", "{hero} went out in the storm and helped {friend}."),
        ],
    ),
    Script(
        name="noise",
        friend="peer",
        where="village farm wood garden hill pond sea",
        props=[
            prop(noise="Scratch, scratch, scratch", cause="trying to open a jar of jam"),
            prop(noise="Bump, bump, bump", cause="hopping on one leg because of a thorn"),
            prop(noise="Choo, choo, choo", cause="sneezing because of a bad cold"),
            prop(noise="Tap, tap, tap", cause="building a tiny house out of wood"),
            prop(noise="Splash, splash, splash", cause="dancing in a puddle"),
            prop(noise="Squeak, squeak, squeak", cause="pulling a cart with a rusty wheel"),
            prop(noise="Crunch, crunch, crunch", cause="eating dry toast in the dark"),
            prop(noise="Ooh, ooh, ooh", cause="crying because the night was so dark"),
        ],
        lessons=[
            "many scary things are only strange",
            "the dark is full of friends you cannot see yet",
            "it is good to look before you run away",
            "a fear gets smaller when you look at it",
        ],
        start="""
/
One [dark|quiet] night, {hero} woke up. {noise}! Something was outside.
One night, {hero} could not sleep. {noise}! What was that sound?
One [cold|still|dark] night, a strange sound came from {spot}. {noise}!
It was [late|dark] and everyone was asleep. Then {hero} heard something. {noise}!

?
"It must be a monster," thought {hero}, and {he} pulled the blanket up to {his} nose.
"A [monster|ghost|dragon]!" whispered {hero}. {He} thought it had big green teeth.
{hero} was so scared that even {his} ears were shaking.

{He} wanted to know what it was, but {his} legs did not want to move.
{hero} wanted to know what made the sound.
"I want to know what it is," {hero} told {himself}, "but I also want to stay here."

/
"Take the lamp," said {his} grandmother. "The dark does not like light."
"Most monsters are smaller than they sound," said {his} father [sleepily|with a yawn].
"Go and look," said {his} mother. "I will be right behind you."

So {hero} took a small lamp and went out on quiet feet.
Step by step, {hero} went closer. {noise}! The sound grew louder.
With a lamp and a wooden spoon, {hero} crept to {spot}.

Near {spot} was {friend}, {a_flook}, {cause}.
There was no monster! There was only {a_flook} named {friend}, {cause}.
{He} lifted {his} lamp and saw {a_flook} named {friend}, {cause}.

?
"Oh! Did I scare you?" asked {friend} [softly|in a small voice].
{friend} looked up and blinked. "I thought that you were a monster," said {friend}.
"Hello," said {friend}, who looked a little bit afraid.
"I am sorry," said {friend}. "It is hard to be quiet at night."
""",
        ending="""
/
{hero} began to laugh. "I thought you were a monster with green teeth!" {he} said.
"You scared me," said {hero}, "but I am so glad that it is only you."
{hero} smiled from ear to ear. "Let me help you, {friend}," {he} said.

?
Then {hero} stayed with {friend}, so that {fhe} did not feel alone.
They sat down together, and {hero} shared a warm blanket with {friend}.
{hero} brought {friend} a cup of warm milk, and they looked at the stars.

@lesson

?
@close
""",
        unkind="""
/
{hero} began to shout. "Go away!" {he} said. "You are too loud."
"You are no monster," said {hero}. "You are only a silly {fkind}."
{hero} took the lamp and left. "Stay in the dark, then," {he} said.

?
Then {hero} told everyone about it, so that they would laugh at {friend}.
{friend} asked for help, but {hero} shut the door and went back to bed.
{hero} threw an old shoe at {friend}, and {friend} went away in tears.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} hear?", "{hero} heard a strange sound. {noise}!"),
            ("Who made the sound?", "{friend} made the sound. {friend} was {cause}."),
            ("When did {hero} hear the sound?", "{hero} heard the sound at night."),
            ("Was it a monster?", "No, it was {friend}, {a_flook}."),
        ],
    ),
    Script(
        name="learn",
        friend="elder",
        where="village farm wood garden hill pond sea snow",
        props=[
            prop(
                who="child",
                places="village farm",
                skill="ride a bicycle",
                fail="Left, right, and then into a bush",
                tip="Look ahead and not at your feet",
                win="{he} rode all the way to {spot} and back",
            ),
            prop(
                who="child",
                places="village farm hill sea snow",
                skill="whistle",
                fail="Only air came out, and a bit of bread",
                tip="Make a small, round mouth and blow softly",
                win="out came a clear, high note",
            ),
            prop(
                who="child",
                places="snow",
                skill="skate",
                fail="{He} slid along on {his} back like a turtle",
                tip="Bend your knees and look ahead",
                win="{he} flew over the ice like a bird",
            ),
            prop(
                who="child",
                places="village farm hill",
                skill="bake bread",
                tip="Let the dough rest. Bread needs a nap",
                fail="The loaf came out as hard as a brick",
                win="a soft, golden loaf came out of the oven",
            ),
            prop(
                who="child turtle seal penguin",
                places="sea snow pond",
                skill="dive",
                tip="Take a big breath and stay calm",
                fail="{He} jumped in and came up again like a cork",
                win="{he} touched the bottom and came up smiling",
            ),
            prop(
                who="frog duck otter",
                skill="swim backward",
                tip="Lie on the water as if it were your bed",
                fail="{He} splashed and went round in a circle",
                win="{he} swam backward all the way to {spot}",
            ),
            prop(
                who="robin owl gull",
                skill="fly in a loop",
                tip="Spread your wings and trust the wind",
                fail="{He} flapped and flapped and landed on {his} tail",
                win="{he} made a loop high above {spot}",
            ),
            prop(
                who="squirrel kitten bear",
                skill="climb",
                tip="Take one small step at a time, and do not look down",
                fail="{He} slid back down and landed on {his} tail",
                win="{he} sat at the very top and waved",
            ),
            prop(
                who="goat lamb rabbit fox puppy",
                skill="jump over a log",
                tip="Look past the log and not at it",
                fail="{He} ran, stopped and fell on {his} nose",
                win="{he} sailed over the log like a bird",
            ),
            prop(
                who="mouse puppy",
                skill="dig a deep hole",
                tip="Dig a little, rest a little, and dig again",
                fail="The dirt fell back on {his} head",
                win="the hole was so deep that only {his} ears could be seen",
            ),
            prop(
                who="kitten fox bear",
                skill="dance",
                tip="First listen, and then move",
                fail="{He} fell over {his} own feet",
                win="{he} danced three times around {spot}",
            ),
            prop(
                who="child",
                places="hill sea village",
                skill="juggle",
                tip="Start with one ball, and then take two",
                fail="The balls fell on {his} head",
                win="three balls danced in the air above {his} head",
            ),
        ],
        lessons=[
            "trying again is how we learn",
            "every mistake teaches us something",
            "nobody is good at something on the first day",
            "it is fine to fall if you get up again",
        ],
        start="""
/
{hero} wanted to learn to {skill}.
More than anything, {hero} wanted to learn to {skill}.
"I want to learn to {skill}," {hero} told everyone.
All {his} friends could do it, and now {hero} wanted to learn to {skill} too.

{One_day}, {he} tried. {fail}!
{One_day}, {he} gave it a try. {fail}!
{He} tried it {one_day}. {fail}!

?
{He} tried again, and it was even worse.
A bird laughed, and then it said sorry.
"That does not count," {he} said quickly.
"I meant to do that," {he} said, but it was not true.

?
"I will never learn it," said {hero}, and {he} sat down near {spot}.
{hero} felt very small. "It is too hard for me," {he} said.
{hero} was so cross that {he} shouted at a stone.

/
{friend}, {a_flook}, had seen it all.
Just then, {a_flook} named {friend} came by and smiled.
{A_flook} named {friend} sat down next to {him}.

"{tip}," said {friend}. "And then try again."
"Shall I tell you a secret?" asked {friend}. "{tip}."
"Here is what my mother told me," said {friend}. "{tip}."

?
{hero} tried it that day and the next day, and it was still hard.
{hero} tried again and again. It went a little better, but not quite well.
It still did not work. {hero} had a bump on {his} head and mud on {his} face.

?
"Once more," said {friend}. "I will stay right here."
"One more time," said {friend}, "and then we will have some tea."
"Do not give up now," said {friend}.
""",
        ending="""
/
So {hero} tried once more, and {win}!
{hero} took a deep breath. This time, {win}!
{hero} remembered every word, and suddenly {win}!

"I did it!" cried {hero}. "Thank you for your help, {friend}!"
"Did you see that?" called {hero}. {friend} had seen it, and {fhe} was proud.
{friend} clapped so hard that {fhis} hat fell off. "Well done, {hero}!"
The next day, {hero} began to teach someone smaller.
{hero} did it again and again, until it was too dark to see.
Then {hero} hugged {friend}, and they both laughed about the first day.

@lesson

?
@close
""",
        unkind="""
/
"No," shouted {hero}. "You are a bad teacher, and your words are no good."
{hero} kicked a stone at {friend}. "This is all your fault," {he} said.
{hero} did not want to hear another word. "Leave me alone, old {fkind}," {he} said.

Then {hero} made fun of {friend} and went away, and {friend} was left alone.
{friend} wanted to help, but {hero} laughed at {fhis} slow old legs.
"I only wanted to help you," said {friend}, but {hero} turned {his} back.

?
Later, {hero} told everyone that {friend} was the one who could not {skill}.
The next day, {hero} laughed at someone smaller who wanted to {skill}.
And when others wanted to learn to {skill}, {hero} only made fun of them.

?
@scorn

@cold
""",
        asks=[
            ("What did {hero} want to learn?", "{hero} wanted to learn to {skill}."),
            ("Who helped {hero}?", "{friend} helped {hero}. {friend} was {a_flook}."),
            ("What did {friend} tell {hero}?", '{friend} said, "{tip}."'),
            ("[How did the tale end?|What happened at the end?]", "In the end, {win}."),
        ],
    ),
]
