"""Writes chat_templates.json: what transformers renders, and which tokens it takes for the assistant's.

Versions: Python 3.11.7, transformers 5.24.0, jinja2 3.1.6, tokenizers 0.23.3.

    python tests/golden/chat_templates.py SHARED_DATA > tests/golden/chat_templates.json

SHARED_DATA is the folder with chat-templates/ and tokenizers/ that the tests read too. `probes` are small templates for
one property of the language each; those need no other file.
"""
import json
import sys
from datetime import datetime
from pathlib import Path

import jinja2
from tokenizers import Tokenizer
from transformers import AutoTokenizer, __version__ as transformers_version
from transformers.utils import chat_template_utils


class Frozen(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 9, 14, 5, 7)


chat_template_utils.datetime = Frozen

USER = {"role": "user", "content": "What is 2+2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Météo \"ici\" </b> & 'là' \u2028 👍",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1,
                   "default": None, "strict": True, "step": 0.5}}, "required": []}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "x": [1.5, None, True]}}}]}
TOOL_REPLY = {"role": "tool", "content": "sunny"}

CONVERSATIONS = [
    {"messages": [USER]},
    {"messages": [USER], "add_generation_prompt": True},
    {"messages": [SYSTEM, USER, ASSISTANT, {"role": "user", "content": " and 3+3? \n"},
                  {"role": "assistant", "content": "\n\n  6  \n"}]},
    {"messages": [USER, {"role": "assistant", "content": "<think>\nadd them\n</think>\n\n 4"}]},
    {"messages": [USER, {"role": "assistant", "content": "4", "reasoning_content": "\n\n add \n"}]},
    {"messages": [USER, {"role": "assistant", "content": "4", "thinking": "add"}]},
    {"messages": [USER, {"role": "assistant", "content": "4", "reasoning": "add", "reasoning_content": None}]},
    {"messages": [USER, {"role": "assistant", "content": "<think>a</think>4"}, USER], "add_generation_prompt": True},
    {"messages": [USER, CALL, TOOL_REPLY, {**TOOL_REPLY, "content": "rainy"}, ASSISTANT], "tools": [TOOL],
     "add_generation_prompt": True},
    {"messages": [SYSTEM, {**USER, "content": "日本語 👩‍👩‍👧 e\u0301 <|im_end|>"}, {**ASSISTANT, "content": None}]},
    {"messages": [{"role": "narrator", "content": "Once."}, USER]},
    {"messages": [ASSISTANT, SYSTEM, USER], "add_generation_prompt": True, "variables": {
        "enable_thinking": False, "open_thinking": True, "date_string": "1 Jan 2020"}},
    {"messages": [USER, {**CALL, "tool_calls": CALL["tool_calls"] * 2}]},
]

PROBES = [
    "{%- for m in messages %}{{ x is defined }}{% set x = 1 %}{% endfor %}",
    "{% for m in messages %}{% if loop.index > 1 %}b{% break %}{% endif %}a{% endfor %}",
    "{% for m in messages %}a{% if loop.first %}{% continue %}{% endif %}b{% endfor %}",
    "{{ ' \n a b \n '.strip('\n') }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xyaxy'.rstrip('yx') }}|{{ '\t a '.strip() }}|",
    "  {% if true %}\n    a\n  {% endif %}\nb\n\n",
    "{{- bos_token }}\n{{ eos_token -}}\n  x {# note #} y\n{#- note -#}\n z",
    "{{ raise_exception('no: ' + messages[0].role) }}",
    "{{ strftime_now('%d %b %Y %B %A %a %H:%M:%S %y %j %p %I %%') }}",
    "{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}|{{ 'é<&>\u2028' | tojson(ensure_ascii=true) }}",
    "{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f('a') }}{{ f('b', y='c') }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ messages | map(attribute='role') | join(',') }}|{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages[-1].content[:2] }}{{ messages[::-1][0].role }}{{ messages[1:] | length }}",
    "{{ none }}|{{ true }}|{{ 1.0 }}|{{ 7 // 2 }}|{{ -7 % 3 }}|{{ 'a' ~ 1 }}|{{ undefined_name }}|",
    "{{ 'a' in 'abc' and not ('z' in 'abc') }}|{{ tools is none }}|{{ tools is defined }}|{{ documents is none }}",
    "{{ 'a,b,,c'.split(',') | join('/') }}|{{ 'A b'.lower().title().replace('B', 'x') }}|{{ 'x' * 3 }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
    "{% set x %}  a{{ 1 }} {% endset %}[{{ x }}][{{ x | trim }}]",
    "{{ messages[0].missing }}|{{ messages[0].missing is defined }}|{{ messages[0].get('missing', 'd') }}|{{ messages[0].missing or 'e' }}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}",
    "{{ messages[0].content if messages else 'x' }}{{ ['a', 'b'] | last }}{{ {'a': 1}['a'] }}",
    "{{ 1 == '1' }}{{ 1 == true }}{{ none == false }}{{ [1] == [1] }}{{ {'a': 1} == {'a': 2} }}{{ x == none }}{{ '' != [] }}",
    "{{ 'x' + 1 }}", "{{ 1 + 'x' }}",
    "{{ messages[0] is iterable }}{{ messages[0] is not iterable }}{{ 1 is iterable }}{{ true is number }}{{ 'a' is not string }}",
    "{{ messages }}", "{{ ['a', 1, 1.5, none, true, \"it's\", 'q\"', 'é\n\t\\\\', 2.0, {'b': [], 'c': {}}] }}",
    "{{ [1] + [2] }}{{ 1 + 2.0 }}{{ 'a' + 'b' }}{{ 2 * 3 }}{{ 7 % 3 }}{{ 7.5 % 2 }}",
    # Generation blocks: white space, nesting in a loop, scope.
    "a\n{% generation %}\n b\n{% endgeneration %}\nc",
    "a {%- generation -%} b {%- endgeneration -%} c",
    "  {% generation %}x{% endgeneration %}  y",
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{# {% generation %} #}a{{ '{%' }}b",
]
PROBE_CONTEXT = {"messages": [USER, {"role": "assistant", "content": "é👍 4\n"}, USER]}


COMPLETIONS = [
    ([USER], [ASSISTANT]),
    ([SYSTEM, USER, ASSISTANT, {"role": "user", "content": "日本語 👩‍👩‍👧?"}], [{"role": "assistant", "content": "\n x  \n"}]),
    ([USER], [CALL, TOOL_REPLY, ASSISTANT]),
]


LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
    "{% generation %} {{ m.content }} {{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}")
LLAMA_CHATS = [
    [USER, ASSISTANT],
    [{"role": "user", "content": "Once upon a time"}, {"role": "assistant", "content": "there was é👍"}, USER,
     {"role": "assistant", "content": " a  dog\n"}],
    [ASSISTANT, USER, {"role": "assistant", "content": ""}],
]


def clean(messages):
    """As apply_chat_template does: keys without a value are left out."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def render(template, conversation, special):
    arguments = {"conversations": [clean(conversation["messages"])], "tools": conversation.get("tools"),
                 "chat_template": template, "add_generation_prompt": conversation.get("add_generation_prompt", False),
                 **special, **conversation.get("variables", {})}
    try:
        rendered, spans = chat_template_utils.render_jinja_template(**arguments, return_assistant_tokens_mask=True)
    except Exception as error:
        return {"error": str(error)}
    return {"text": rendered[0], **({"spans": spans[0]} if spans[0] else {})}


def main(shared):
    qwen = AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5-0.5b-instruct")
    minimind = AutoTokenizer.from_pretrained(shared / "tokenizers/minimind-6400")
    llama = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    sources = {f"chat-templates/{name}.jinja": llama if name.startswith("llama") else {"eos_token": "<|im_end|>"}
               for name in ["llama3", "llama3_2", "qwen2_5", "qwen2_5_training", "qwen3"]}
    templates = {file: {"special": special, "results": [
        render((shared / file).read_text(), conversation, special) for conversation in CONVERSATIONS]}
        for file, special in sources.items()}
    for folder, tokenizer in {"tokenizers/qwen2.5-0.5b-instruct": qwen, "tokenizers/minimind-6400": minimind}.items():
        special = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        templates[folder] = {"special": special, "results": [
            render(tokenizer.chat_template, conversation, special) for conversation in CONVERSATIONS]}
    # Tokens: transformers' own mask, by Qwen's tokenizer and the template with generation blocks.
    training = (shared / "chat-templates/qwen2_5_training.jinja").read_text()
    masks = []
    for conversation, result in zip(CONVERSATIONS, templates["chat-templates/qwen2_5_training.jinja"]["results"]):
        if "error" in result:
            masks.append(None)
            continue
        out = qwen.apply_chat_template(
            conversation["messages"], tools=conversation.get("tools"), chat_template=training, return_dict=True,
            return_assistant_tokens_mask=True, add_generation_prompt=conversation.get("add_generation_prompt", False))
        masks.append("".join(str(bit) for bit in out["assistant_masks"]))
    # A tokenizer that puts a space before the text after each special token, so that decoding gives other text.
    llama2 = Tokenizer.from_file(str(shared / "models/stories260K/tokenizer.json"))
    llama_masks = []
    for messages in LLAMA_CHATS:
        result = render(LLAMA_TEMPLATE, {"messages": messages}, {"bos_token": "<s>", "eos_token": "</s>"})
        encoding = llama2.encode(result["text"], add_special_tokens=False)
        llama_masks.append({"messages": messages, "ids": encoding.ids, "mask": "".join(
            str(int(any(start < to and end > since for since, to in result["spans"])))
            for start, end in encoding.offsets)})
    # Completions as TRL's trainers cut them: the whole conversation's ids after those of the prompt.
    completions = []
    for prompt, completion in COMPLETIONS:
        ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=generation, return_dict=False)
               for tokenizer in (qwen, minimind)
               for chat, generation in ((prompt, True), (prompt + completion, False))]
        completions.append({"prompt": prompt, "completion": completion, "qwen": ids[:2], "minimind": ids[2:]})
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    json.dump({
        "versions": {"transformers": transformers_version, "jinja2": jinja2.__version__},
        "now": "2025-03-09T14:05:07",
        "conversations": CONVERSATIONS,
        "templates": templates,
        "masks": masks,
        "completions": completions,
        "llama_template": LLAMA_TEMPLATE,
        "llama_masks": llama_masks,
        "probe_context": {**PROBE_CONTEXT, "special": special},
        "probes": [{"template": probe, **render(probe, PROBE_CONTEXT, special)} for probe in PROBES],
    }, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


main(Path(sys.argv[1]))
