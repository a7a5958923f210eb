"""Results of a sweep of fine-tunings: the ranking, and a copy of the best model on this machine."""

import hashlib
from pathlib import Path

import polars as pl

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.errors import CampaignError
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ranges import Chunk


def delete_checkpoints(campaign: Campaign) -> None:
    """Delete the checkpoints of all settled trainings: nothing continues from them any more."""
    settled = (Chunk.parse(keys.stem(entry.key)) for entry in campaign.store.list(keys.SETTLED))
    for index in (index for chunk in settled for index in range(*chunk)):
        for entry in list(campaign.store.list(keys.checkpoints_of(index))):
            campaign.store.delete(entry.key)


def ranking(campaign: Campaign) -> pl.DataFrame:
    """Return the finished trainings, lowest validation loss first. Raises `CampaignError` if nothing was published."""
    return campaign.outputs().sort("rank").collect()


def download_best(campaign: Campaign, folder: Path) -> Path:
    """Copy the best model or adapter, with tokenizer and card, into `folder`, and return `folder`.

    Raises:
        CampaignError: nothing was published, no training finished, or the weights do not have the recorded checksum.
    """
    rows = ranking(campaign)
    if rows.is_empty():
        raise CampaignError(f"no training of {campaign.store.uri} has finished")
    best = rows.row(0, named=True)
    prefix = f"{best['model']}/"
    for entry in campaign.store.list(prefix):
        campaign.store.download(entry.key, folder / entry.key.removeprefix(prefix))
    weights = sorted(folder.glob("*.safetensors"))
    if len(weights) == 1 and hashlib.sha256(weights[0].read_bytes()).hexdigest() != best["model_sha256"]:
        raise CampaignError(f"{campaign.store.uri}/{best['model']} does not have the recorded checksum")
    return folder
