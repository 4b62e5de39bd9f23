"""The stand-in base model: a tiny Llama and its tokenizer, trained from nothing.

It is real in every respect but size: grouped-query attention, rotary embeddings, an untied head,
Llama-3's special tokens, safetensors on disk. It has read a general mixture with little hep-th,
so that fine-tuning has something to teach it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator

import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
    set_seed,
)

from feyntune.data import snapshot
from feyntune.data.overlap import normalised
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import StandInBase
from feyntune.models.base import encode, padded, stand_in_configuration
from feyntune.runs import records

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
SPECIAL_TOKENS = [BOS, EOS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# How Llama-3 cuts text into words before byte-level BPE.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# Fewer abstracts than this teach the model nothing.
FEWEST_ABSTRACTS = 200


def make(experiment: Experiment) -> None:
    """Train tokenizer and model, and save them as one folder."""
    settings = experiment.base.stand_in
    hep_th, general = _unused_abstracts(experiment)
    texts = mixture(hep_th, general, settings)
    tokenizer = train_tokenizer([*general, *hep_th], settings)
    encoded = encode(tokenizer, texts, eos=True)
    fitting = [ids for ids in encoded if len(ids) <= settings.max_positions]
    model, tokens = train_model(fitting, tokenizer, settings)
    records.note(abstracts=len(fitting), too_long=len(encoded) - len(fitting), tokens=tokens)
    with writing(experiment.paths.base) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _unused_abstracts(experiment: Experiment) -> tuple[list[str], list[str]]:
    """A sample of the cleaned abstracts that were not sampled for the datasets, by id or by text.

    Papers first submitted after the year ``base.knowledge_until`` are left out.

    Returns
    -------
    hep_th, general
        Those of hep-th and all others, each a uniform sample (reservoir) of at most
        ``base.stand_in.abstracts``, so that a snapshot of millions fits in memory.
    """
    settings = experiment.base.stand_in
    sampled = set(pd.read_parquet(experiment.paths.sampled)["id"])
    used = {*sampled, *experiment.data.excluded_ids}
    texts = {
        normalised(snapshot.clean(paper.abstract))
        for paper, _, _ in _papers(experiment)
        if paper.id in sampled
    }
    generator, seen = random.Random(settings.seed), Counter()
    pools: dict[bool, list[str]] = {True: [], False: []}
    for paper, primary, year in _papers(experiment):
        if year > experiment.base.knowledge_until or paper.id in used or paper.withdrawn:
            continue
        is_hep_th = primary == "hep-th"
        pool = pools[is_hep_th]
        full = len(pool) == settings.abstracts
        place = generator.randrange(seen[is_hep_th] + 1) if full else len(pool)
        seen[is_hep_th] += 1
        if place < settings.abstracts:
            abstract = snapshot.clean(paper.abstract)
            # A paper may have been submitted twice.
            if abstract and normalised(abstract) not in texts:
                pool[place : place + 1] = [abstract]
    return pools[True], pools[False]


def _papers(experiment: Experiment) -> Iterator[tuple]:
    """Every paper of the snapshot, with its primary category and year."""
    return snapshot.papers(
        experiment.snapshot, snapshot.Reading(), bad_lines_allowed=experiment.data.bad_lines_allowed
    )


def mixture(hep_th: list[str], general: list[str], settings: StandInBase) -> list[str]:
    """A shuffled general mixture with a small share of hep-th, as large as the texts allow.

    Raises
    ------
    UserError
        If there are too few abstracts outside the datasets.
    """
    if len(general) < FEWEST_ABSTRACTS:
        raise UserError(
            f"Too few abstracts for the stand-in base model: at least {FEWEST_ABSTRACTS} that are "
            f"neither hep-th nor in a dataset are needed, the snapshot has {len(general)}. Use a "
            "larger snapshot or lower data.sample."
        )
    generator = random.Random(settings.seed)
    few = min(len(hep_th), round(settings.hep_th_share * settings.abstracts))
    many = min(len(general), settings.abstracts - few)
    texts = generator.sample(hep_th, few) + generator.sample(general, many)
    generator.shuffle(texts)
    return texts


def train_tokenizer(texts: list[str], settings: StandInBase) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama-3's words, special tokens and a chat template."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Special tokens come after the vocabulary, as in Llama-3.
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=settings.max_positions,
        clean_up_tokenization_spaces=False,
    )


def train_model(
    sequences: list[list[int]], tokenizer: PreTrainedTokenizerFast, settings: StandInBase
) -> tuple[LlamaForCausalLM, int]:
    """Train the tiny Llama from nothing with AdamW and a cosine schedule.

    Returns
    -------
    model, tokens
        The model, and the number of tokens it was trained on.
    """
    set_seed(settings.seed)
    model = LlamaForCausalLM(_config(tokenizer, settings)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=tuple(settings.betas),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )
    batches = list(_batches(sequences, settings))
    schedule = get_cosine_schedule_with_warmup(
        optimizer, math.ceil(settings.warmup_share * len(batches)), len(batches)
    )
    tokens = 0
    for batch in batches:
        ids, mask = padded(batch, model.device)
        labels = ids.masked_fill(mask == 0, -100)
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += sum(map(len, batch))
    return model.eval(), tokens


def _config(tokenizer: PreTrainedTokenizerFast, settings: StandInBase) -> LlamaConfig:
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return stand_in_configuration(settings, vocab_size=len(tokenizer), **special)


def _batches(sequences: list[list[int]], settings: StandInBase) -> Iterator[list[list[int]]]:
    """Shuffled batches, epoch after epoch; sorted inside a window, so that little is padding."""
    generator = random.Random(settings.seed)
    window = 16 * settings.batch_size
    for _ in range(settings.epochs):
        order = generator.sample(sequences, len(sequences))
        batches = []
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=len)
            batches += [
                near[i : i + settings.batch_size] for i in range(0, len(near), settings.batch_size)
            ]
        generator.shuffle(batches)
        yield from batches
