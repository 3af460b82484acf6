"""Parts of the state machine of `test_state`: what commands and plugins change."""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from chat.rooms import effects as fx
from chat.rooms.commands import decisions as command_rules

people = st.sampled_from(["ann", "Bob", "cem", "dora", "eve"])
channels = st.sampled_from(["lobby", "Garden", "secret", "attic"])


class Commands:
    """Mixed into the machine, which has ``decide``, ``commit``, ``may_moderate`` and the model."""

    @rule(who=people, room=channels, name=st.sampled_from(["tell", "color"]), enabled=st.booleans())
    def switch_command_here(self, who, room, name, enabled):
        if who in self.users and room in self.members:
            found = self.state.room(room)
            refused = not self.may_moderate(who, found) or (name not in found.disabled_commands) == enabled
            if self.decide(lambda: command_rules.set_enabled_here(self.account(who), found, name, enabled), refused=refused):
                assert (name not in found.disabled_commands) == enabled

    @rule(who=people, room=channels, prefix=st.sampled_from([None, "!", ".", "x"]))
    def set_prefix(self, who, room, prefix):
        if who in self.users and room in self.members:
            found = self.state.room(room)
            refused = not self.may_moderate(who, found) or prefix == "x"
            if self.decide(lambda: command_rules.set_prefix(self.account(who), found, prefix), refused=refused):
                assert found.prefix == prefix

    @invariant()
    def prefixes_are_gathered(self):
        assert set(self.state.prefixes) == {each.prefix for each in self.state.rooms.values()} - {None}

    @rule(plugin=st.sampled_from("ab"), key=st.sampled_from("xyz"), value=st.sampled_from([None, "1", '"two"']))
    def put_plugin_value(self, plugin, key, value):
        self.commit([fx.PutPluginValue(plugin=plugin, key=key, value=value)])
        assert self.state.plugin_values.of(plugin).get(key) == value
