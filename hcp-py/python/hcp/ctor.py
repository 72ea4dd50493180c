"""C tor's onion service directories: import of a service that C tor ran, export of one that it shall run.

C tor knows no sealed keys: an export is in the clear, readable by its owner only.
"""

from hcp._hcp import ctor_decode_secret_key as decode_secret_key
from hcp._hcp import ctor_export as export
from hcp._hcp import ctor_import as import_

__all__ = ["decode_secret_key", "export", "import_"]
