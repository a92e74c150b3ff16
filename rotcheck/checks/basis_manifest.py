"""ROT306: a model is in the bases that its manifest names, tensor by tensor."""

from __future__ import annotations

from rotcheck.checking import Finding, check
from rotcheck.slicing.describe import stored_tensors
from rotcheck.slicing.examine import examine
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness


@check(code="ROT306", kinds=["SlicedModel"], needs=["manifest"])
def basis_manifest(subject: SlicedModel, witness: Witness) -> list[Finding]:
    r"""Every tensor has the hash, dtype and shape of ``bases.json``, and its bases fit together along the graph.

    All readers and writers of a site name the basis of that site, shortcuts the bases of their two ends, value rows
    and output columns the basis of the same head, down projections the basis that turns their input online; sites
    share a basis where ``config.site_bases`` says so. Fields of the configuration that bear on the function are those
    that the model was saved with. With ``bases.safetensors``, in float64: each basis has orthonormal columns
    (``|U.T U - I|_2`` within the rounding of its dtype), each shortcut is ``U_from[:, :w].T @ U_to[:, :v]``, and each
    online rotation holds its bases. Neither data nor the original is needed.
    :func:`rotcheck.slicing.verify_manifest` says the same of a directory.

    Catches
    -------
    A tensor changed after saving, an online rotation lost with a key of the configuration, an epsilon, a divisor or an
    activation edited in the configuration, the manifest or the bases of another seed, a reader in the basis of the next
    site, a transposed shortcut, heads that name another head's basis, a tensor that no one mentions, a basis rounded
    through a coarser dtype.

    Cannot see
    ----------
    A reader or writer that was rotated wrongly before it was hashed: `tensor_bases` and `equivalence` compare with the
    original. Bases of another seed where a model has neither shortcuts nor online rotations. With hashes only, nothing
    about the mathematics. Edits of configuration fields that the function of the weights does not depend on (token ids,
    dtype, cache, labels, the implementation of attention), and edits that change the manifest along: it is not signed.

    References
    ----------
    intel/auto-round and ModelCloud/GPTQModel#2354 (online rotations missing after reload); thu-nics/ViDiT-Q#22
    (rotations of another seed).
    """
    return list(examine(subject.manifest, subject.model.config, stored_tensors(subject.model)))
