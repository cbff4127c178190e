"""The admin of those who may use the admin, in the look of the rest."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from followers.admin_base import QuickHistory

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StaffAdmin(QuickHistory, UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class StaffGroupAdmin(QuickHistory, GroupAdmin, ModelAdmin):
    pass
