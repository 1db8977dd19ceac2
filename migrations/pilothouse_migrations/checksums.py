"""The checksum of each migration, oldest first, as `runner.checksum` makes it; a test holds the two equal.

A server reads them at its start, where rendering the migrations would take Alembic. A new migration adds a line.
"""

from __future__ import annotations

from typing import Final

CHECKSUMS: Final = {
    "0001": "d7c437dffe5032fd1524ea68a0c51df1e34551a4bcb44392be19ce54c9e24f9c",
    "0002": "ece6a3644cfc17c0c4a10b0e19fe80acd12edbea2ea5e33707b0195327265f7e",
    "0003": "03f0e26013975dda9649326fd993d579c8c90774905bb2aaebdfc290f9817fd4",
    "0004": "4d4630b2dfdbda93bfba61d174020f1f29a62c33c084216d2e3290c891d2a91e",
    "0005": "3008d54d6536a6b4dc2ee17bf1ce415747dd021ea1d0806a79be5ef077fbad48",
    "0006": "675dc320593b0603e564f776d6ec809f48b385f391000899a6a09d0f4b7d5ba2",
    "0007": "8262e0d4c227c4ffe228bcbec9d1f34ef760cae110bc0d315e84eddc2421b3cb",
    "0008": "877b565b9e70a6bb3a614766dc3037b0fbbbab0cb027d5ba0972e44145cc8e05",
    "0009": "8b6d7e3121b21c02d6a7c514968bcd0348b3b13623beee22068bfaf5f724d7c6",
    "0010": "50a2e7a266ec68a5dd9cf201db5669799b4631979d7956927a484ab637c58556",
    "0011": "decd93f184402a191447e93acfd4b4e8a9247a84906cbbc89ccf4d215ca2dac9",
    "0012": "47651b1a821efe53ce2203234116a94b30d5533e578715f6ac2a779b869a9842",
    "0013": "2f033f0a78ba61b2698f1fb5bc50b51d8b4b487790c9cb8bb3d4d1825051e3a8",
    "0014": "aec420ea3331ee2de167da4f8b82dec6a9ff1715420346d200b8160a0ac5e756",
    "0015": "bdf98b34ec3612190bb1ac9ea217eb4d0530bff56b0f95601ef13fd5226152cd",
    "0016": "ecbbd37dc3ec90eab0f77e3c22c42824d0947d35cdcb2f011f86e24f6dda9be1",
    "0017": "0233219b7ffce305bcec2a4cab96f0771f154ed766d4fa3e4af0cf786c657398",
    "0018": "0bc51c60e85f193c7bea172366eb71b34edeb0e387320a8fcc9264660db76dc6",
    "0019": "d6f9eaa74d0d5a772da94c135b2be821c72295e4c628bdcc8b1e81285eb5a72b",
    "0020": "bcf94801b4b6c3f35129ba388ad7654b36b601d1bbd1587b93f7ce4ddaf90e7b",
}
