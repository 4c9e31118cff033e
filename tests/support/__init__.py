# SPDX-License-Identifier: Apache-2.0
"""What the integration tests and the demo share: private servers and a real image.

Everything here needs root, touches only directories it made itself, and takes
down what it put up. Python's standard library is all it uses.
"""
