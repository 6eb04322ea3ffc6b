"""`PrivateServer`: viser's server, which publishes nothing."""

from __future__ import annotations

import viser


class PrivateServer(viser.ViserServer):
    """A server that no client can make public.

    viser opens a tunnel to a public address on the request of any client; a page of somebody else in the same browser
    could send it.
    """

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Nothing: the scene stays on this machine."""
        return None
