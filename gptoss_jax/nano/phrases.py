"""Fixed texts of the conversations: the official prompt's lines, the tool, common words, small talk."""

TOOLS = """# Tools

## functions

namespace functions {

// Evaluates arithmetic.
type calc = (_: {
expr: string,
}) => any;

} // namespace functions"""
IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
CALLS = "\nCalls to these tools must go to the commentary channel: 'functions'."

_COMMON = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law car city name team minute idea body back parent face
level office door health person art war history party result change morning reason research girl guy moment
air teacher force
"""
WORDS = _COMMON.split()
GREETINGS = {
    "Hello": "Hello! I can add, sort, reverse, count and tell weekdays. Ask me.",
    "Hi": "Hi! Give me a small task.",
    "Good morning": "Good morning! Give me a small task.",
    "How are you?": "I am fine, thank you. Give me a small task.",
    "Who are you?": "I am a tiny gpt-oss with 32 experts in every layer.",
    "What are you?": "I am a tiny gpt-oss with 32 experts in every layer.",
    "What can you do?": "I can repeat, add, reverse, sort, count, tell weekdays, compute with a tool and recall.",
    "Help": "Try: What is 12+30? Sort: 3 1 2. Reverse the word a b c.",
    "Thank you": "You are welcome.",
    "Thanks": "You are welcome.",
    "Bye": "Goodbye!",
    "Goodbye": "Goodbye!",
    "OK": "OK",
    "Tell me a joke": "I only know small tasks. Try: Sort: 3 1 2",
}
